// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include <larder/units.h>

namespace larder {

// A task as runtime::for_each_task shows it. The views live as long as the call that shows it.
struct task_state {
  enum class activity : std::uint8_t {
    running,  // by a worker, which is in nobody else's hands until the task waits or yields
    ready,    // until a worker has time for it
    waiting,
  };

  std::string_view runtime{};
  std::string_view name;  // what this_task::set_name gave it
  unsigned worker = 0;    // that runs it, or ran it last, or is to run it first
  activity now = activity::ready;

  // The rest of one that waits.
  //
  // For what: "sleep", "join", "mutex", "shared_mutex", "condition", "semaphore", "channel receive", "channel send",
  // "select", "task_group", "memory" of a budget, an "object" of a cache, "pages" of a page cache, a "page" that
  // others read or write, "socket, to read", "file read", "blocking call", and more. A literal.
  std::string_view waits_for{};
  // The mutex, channel, budget, ... Only its address: it may be gone by now. Null if there is none.
  const void* object = nullptr;
  std::string_view object_name{};  // a budget's or a cache's
  int descriptor = -1;             // of a socket or file
  // The name of the task that has the mutex or that is joined; "a thread" for one that is none; empty if unknown.
  std::string_view holder{};
  std::chrono::nanoseconds waited{0};  // to some milliseconds
  time_point deadline = no_deadline;   // when it gives up; of a sleep, when it ends
  // It is in a circle in which each waits for a mutex that the next one has, or for the next one's end, and none has a
  // deadline: it waits for ever, unless the circle is opened by the cancellation of a join.
  bool deadlocked = false;
};

}  // namespace larder

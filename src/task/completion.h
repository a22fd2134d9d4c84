// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>

#include <larder/object_cache.h>

#include "base/atomic.h"
#include "os/cancellation.h"
#include "os/parker.h"

namespace larder::task_layer {

class group_core;

// What a task shares with who waits for its end or cancels it: a handle, or a group.
struct completion {
  // Before the task runs. With a group, which the task enters later, there is no handle.
  void begin(object_cache<completion>* from, os::parker& task, group_core* of);
  // By the task's worker, which does not count it any more: tells who waits. Then this is the handle's, or gone.
  void finish();

  // The rest is for the handle, or the group.
  //
  // Whether the task has ended; then what it threw can be read.
  bool ended() const { return word_.load() == task_ended; }
  // Parks until it has. Throws task::cancelled if the caller is cancelled first and `can_be_cancelled`.
  void wait(bool can_be_cancelled);
  void cancel();
  // Leaves this to the task. If that has thrown, or does, the process ends.
  void detach();
  // Gives this back: once the task has ended.
  void release();
  group_core* group() const { return group_; }

  os::cancellation cancellation;
  std::exception_ptr thrown;  // by the task; written before its end is told
  bool ended_early = false;   // by its cancellation; written before its end is told

  completion* next = nullptr;  // these two: among the children of its group
  completion* previous = nullptr;

 private:
  // How it stands, or the parker of who waits.
  using word = std::uintptr_t;
  static constexpr word running = 0;
  static constexpr word task_ended = 1;
  static constexpr word detached = 2;

  static void look(const void* object, os::wait_subject& into);
  void end_detached() noexcept;

  base::atomic<word> word_{running};
  os::parker* task_ = nullptr;  // parkers are never freed: it may be another task's by now
  group_core* group_ = nullptr;
  object_cache<completion>* home_ = nullptr;
};

// Throws task::cancelled if the caller is to heed a request.
void heed_cancellation(os::parker& self);

// What the calling task shares, or null: if nobody can wait for it, or outside of a task.
completion* current_completion();

}  // namespace larder::task_layer

// SPDX-License-Identifier: Apache-2.0
#pragma once

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
  // By the task's worker, which does not count it any more: tells who waits, and drops the task's share.
  void finish();
  // By each owner at its end: the last gives this back.
  void drop();

  // Whether the task has ended; then what it threw can be read.
  bool ended() const { return joiner_.load() == ended_mark(); }
  // Parks until it has. Throws task::cancelled if the caller is cancelled first and `can_be_cancelled`. One caller.
  void wait(bool can_be_cancelled);
  // Any thread that keeps this from going.
  void cancel();
  group_core* group() const { return group_; }

  os::cancellation cancellation;
  std::exception_ptr thrown;  // by the task; written before its end is told
  bool ended_early = false;   // by its cancellation; written before its end is told

  completion* next = nullptr;  // these two: among the children of its group
  completion* previous = nullptr;

 private:
  // A parker that stands for "ended"; its address is all that is used.
  static os::parker* ended_mark();

  base::atomic<os::parker*> joiner_{nullptr};  // null while the task runs; who waits for its end; `ended_mark()`
  base::atomic<int> owners_{0};
  os::parker* task_ = nullptr;  // parkers are never freed: it may be another task's by now
  group_core* group_ = nullptr;
  object_cache<completion>* home_ = nullptr;
};

// Throws task::cancelled if the caller is to heed a request.
void heed_cancellation(os::parker& self);

// What the calling task shares, or null: if nobody can wait for it, or outside of a task.
completion* current_completion();

}  // namespace larder::task_layer

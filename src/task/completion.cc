// SPDX-License-Identifier: Apache-2.0
//
// One word says how it stands: nobody, who waits, ended. Who waits puts itself there by a compare-and-swap, and takes
// itself out by another if it is cancelled; the end is an exchange. So a waiter that takes itself out was not told and
// never will be, and one that does not succeed has what it waited for: its cancellation then ends a later wait.
#include "task/completion.h"

#include <larder/runtime.h>
#include <larder/task_group.h>

#include "base/check.h"
#include "base/mutant.h"
#include "task/run_queue.h"
#include "task/task_parker.h"

namespace larder::task_layer {

using base::is_mutant;
using base::mutant;

os::parker* completion::ended_mark() {
  static task_parker& mark = task_parker::take();
  return &mark;
}

void completion::begin(object_cache<completion>* from, os::parker& task, group_core* of) {
  home_ = from;
  task_ = &task;
  group_ = of;
  joiner_ = nullptr;
  owners_ = of == nullptr ? 2 : 1;
  cancellation.reset();
  ended_early = false;
}

void completion::finish() {
  if (group_ != nullptr) {
    group_->leave(*this);  // after which the group may be gone
  } else {
    os::parker* joiner = joiner_.exchange(ended_mark());
    if (joiner != nullptr) joiner->unpark();
  }
  drop();
}

void completion::drop() {
  if (--owners_ != 0) return;
  thrown = nullptr;
  home_->put(this);
}

void completion::wait(bool can_be_cancelled) {
  os::parker& self = os::parker::current();
  os::parker* there = nullptr;
  if (!joiner_.compare_exchange_strong(there, &self)) {
    LARDER_CHECK(there == ended_mark(), "two wait for the end of one task by one handle");
    return;
  }
  while (!ended()) {
    if (can_be_cancelled && self.must_cancel()) {
      there = &self;
      if (is_mutant(mutant::joiner_left_behind) || joiner_.compare_exchange_strong(there, nullptr)) {
        heed_cancellation(self);
      }
      return;
    }
    self.park();
  }
}

void completion::cancel() {
  if (is_mutant(mutant::cancel_after_wake)) task_->unpark();
  cancellation.request();
  if (!is_mutant(mutant::cancel_after_wake)) task_->unpark();
}

void heed_cancellation(os::parker& self) {
  if (!self.must_cancel()) return;
  self.cancel->take();
  throw task::cancelled();
}

completion* current_completion() {
  const run_queue* here = run_queue::current();
  return here == nullptr ? nullptr : here->running()->completion;
}

}  // namespace larder::task_layer

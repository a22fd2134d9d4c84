// SPDX-License-Identifier: Apache-2.0
//
// One word says how it stands: the task runs, and nobody waits, or who does, or nobody ever will; or it has ended. Who
// waits puts itself there by a compare-and-swap, and takes itself out by another if it is cancelled; the end is an
// exchange. So a waiter that takes itself out was not told and never will be, and one that does not succeed has what it
// waited for: its cancellation then ends a later wait. Whoever finds the other side done gives the whole back, which
// therefore needs no count of owners.
#include "task/completion.h"

#include <larder/runtime.h>
#include <larder/task_group.h>

#include "base/check.h"
#include "base/mutant.h"
#include "os/waiting.h"
#include "task/run_queue.h"

namespace larder::task_layer {

using base::is_mutant;
using base::mutant;

void completion::begin(object_cache<completion>* from, os::parker& task, group_core* of) {
  home_ = from;
  task_ = &task;
  group_ = of;
  word_ = running;
  cancellation.reset();
  ended_early = false;
}

void completion::finish() {
  if (group_ != nullptr) {
    group_->leave(*this);  // after which the group may be gone
    release();
    return;
  }
  word before = running;
  if (is_mutant(mutant::end_told_blindly)) {
    before = word_.load();
    word_ = task_ended;
  } else {
    before = word_.exchange(task_ended);
  }
  if (before == running) return;
  if (before == detached) {
    end_detached();
  } else {
    reinterpret_cast<os::parker*>(before)->unpark();
  }
}

void completion::detach() {
  word seen = running;
  if (is_mutant(mutant::detach_blindly) && word_.load() == running) {
    word_ = detached;
    return;
  }
  if (!word_.compare_exchange_strong(seen, detached)) end_detached();
}

void completion::end_detached() noexcept {
  if (thrown != nullptr) std::rethrow_exception(thrown);  // to std::terminate
  release();
}

void completion::release() {
  thrown = nullptr;
  home_->put(this);
}

void completion::look(const void* object, os::wait_subject& into) {
  const auto& awaited = *static_cast<const completion*>(object);
  if (!awaited.ended()) into.holder = awaited.task_;
}

void completion::wait(bool can_be_cancelled) {
  os::parker& self = os::parker::current();
  const word mine = reinterpret_cast<word>(&self);
  word seen = running;
  if (!word_.compare_exchange_strong(seen, mine)) {
    LARDER_CHECK(seen == task_ended, "two wait for the end of one task by one handle");
    return;
  }
  time_point since{};
  while (!ended()) {
    if (can_be_cancelled && self.must_cancel()) {
      seen = mine;
      if (is_mutant(mutant::joiner_left_behind) || word_.compare_exchange_strong(seen, running)) {
        heed_cancellation(self);
      }
      return;
    }
    const os::waiting noted(self, {.kind = "join", .object = this, .look = look}, since);
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

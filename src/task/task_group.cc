// SPDX-License-Identifier: Apache-2.0
//
// A child enters before it runs and leaves after its stack is back, both under the guard. Who waits is told under the
// guard by the last that leaves, which does not touch the group once it has let go of it: so the group may go as soon
// as a wait has returned.
#include <mutex>
#include <utility>

#include <larder/task_group.h>

#include "base/check.h"
#include "base/mutant.h"
#include "task/completion.h"
#include "task/wait_queue.h"

namespace larder::task_layer {

using base::is_mutant;
using base::mutant;

group_core::~group_core() {
  sync::guard_set guards(guard_);
  std::unique_lock held(guards);
  cancel_children();
  wait_until_empty(held, false);
}

void group_core::enter(completion& child) {
  const std::lock_guard guarded(guard_);
  child.previous = nullptr;
  child.next = children_;
  if (children_ != nullptr) children_->previous = &child;
  children_ = &child;
  ++size_;
  if (cancelled_) child.cancellation.request();  // it does not wait yet
}

void group_core::leave(completion& child) {
  const std::lock_guard guarded(guard_);
  (child.previous == nullptr ? children_ : child.previous->next) = child.next;
  if (child.next != nullptr) child.next->previous = child.previous;
  --size_;
  if (child.thrown != nullptr) {
    // What others threw is dropped with them, where no guard is held.
    if (thrown_ == nullptr) std::swap(thrown_, child.thrown);
    if (!is_mutant(mutant::failure_cancels_nobody)) cancel_children();
  }
  if (size_ != 0 && !is_mutant(mutant::group_told_early)) return;
  sync::tell_all(waiting_);
}

void group_core::wait() {
  sync::guard_set guards(guard_);
  std::unique_lock held(guards);
  try {
    wait_until_empty(held, true);
  } catch (const task::cancelled&) {
    cancel_children();
    wait_until_empty(held, false);
    cancelled_ = false;
    const std::exception_ptr dropped = std::exchange(thrown_, nullptr);
    held.unlock();
    throw;
  }
  cancelled_ = false;
  const std::exception_ptr thrown = std::exchange(thrown_, nullptr);
  held.unlock();
  if (thrown != nullptr) std::rethrow_exception(thrown);
}

void group_core::wait_until_empty(std::unique_lock<sync::guard_set>& held, bool can_be_cancelled) {
  if (size_ == 0) return;
  const completion* caller = current_completion();
  LARDER_CHECK(caller == nullptr || caller->group() != this, "a task waits for the end of the group that it is in");
  sync::wait_place place;
  sync::waiter self({"task_group", this, can_be_cancelled});
  self.enter(place, waiting_);
  sync::wait_until_told(held, self, no_deadline);
}

void group_core::cancel() {
  const std::lock_guard guarded(guard_);
  cancel_children();
}

void group_core::cancel_children() {
  cancelled_ = true;
  for (completion* each = children_; each != nullptr; each = each->next) each->cancel();
}

std::size_t group_core::size() const {
  const std::lock_guard guarded(guard_);
  return size_;
}

}  // namespace larder::task_layer

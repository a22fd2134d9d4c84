// SPDX-License-Identifier: Apache-2.0
//
// Units are handed to the oldest waiter under the guard, as soon as they suffice for it; how waiting goes stands in
// wait_queue.h. So the queue is empty, or its first waiter wants more than what is free.
#include <limits>

#include <larder/semaphore.h>

#include "base/check.h"
#include "base/mutant.h"
#include "task/wait_queue.h"

namespace larder {
namespace {

struct place_of_units : sync::wait_place {
  std::uint64_t units = 0;
};

}  // namespace

semaphore::~semaphore() { LARDER_CHECK(waiting_.first == nullptr, "a semaphore is destroyed while somebody waits"); }

void semaphore::acquire(std::uint64_t units) { try_acquire_until(no_deadline, units); }

bool semaphore::try_acquire(std::uint64_t units) { return try_acquire_until(sync::at_once, units); }

bool semaphore::try_acquire_until(time_point deadline, std::uint64_t units) {
  if (units == 0) return true;
  sync::guard_set guards(guard_);
  std::unique_lock held(guards);
  if (waiting_.first == nullptr && free_ >= units) {
    free_ -= units;
    return true;
  }
  if (sync::has_passed(deadline)) return false;
  place_of_units place;
  place.units = units;
  sync::waiter self({"semaphore", this, true});
  self.enter(place, waiting_);
  // If it leaves untold, what is free may suffice for who stood behind it. Still under the guard.
  const sync::at_exit look_again([this] {
    if (!base::is_mutant(base::mutant::leaver_forgets_others)) serve_waiting();
  });
  return sync::wait_until_told(held, self, deadline);
}

void semaphore::release(std::uint64_t units) {
  const std::lock_guard guarded(guard_);
  LARDER_CHECK(units <= std::numeric_limits<std::uint64_t>::max() - free_,
               "a semaphore with %llu units free was given %llu more, and cannot count them",
               static_cast<unsigned long long>(free_), static_cast<unsigned long long>(units));
  free_ += units;
  serve_waiting();
}

std::uint64_t semaphore::units_free() const {
  const std::lock_guard guarded(guard_);
  return free_;
}

void semaphore::serve_waiting() {
  while (waiting_.first != nullptr) {
    const std::uint64_t wanted = static_cast<place_of_units*>(waiting_.first)->units;
    if (free_ < wanted) return;
    free_ -= wanted;
    wake(*sync::tell_first(waiting_));
  }
}

}  // namespace larder

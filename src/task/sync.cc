// SPDX-License-Identifier: Apache-2.0
//
// Who gives something up hands it to the oldest waiter that it suits, under the guard: a waiter that was told has what
// it waited for, and needs not look again. How waiting goes stands in wait_queue.h.
#include <larder/sync.h>

#include "base/check.h"
#include "base/mutant.h"
#include "task/wait_queue.h"

namespace larder {

using base::is_mutant;

mutex::~mutex() { LARDER_CHECK(holder_ == nullptr, "a mutex is destroyed while it is locked"); }

void mutex::lock() { lock_until(no_deadline, false); }

bool mutex::try_lock() { return lock_until(sync::at_once, true); }

bool mutex::try_lock_until(time_point deadline) { return lock_until(deadline, true); }

bool mutex::lock_until(time_point deadline, bool can_be_cancelled) {
  sync::guard_set guards(guard_);
  std::unique_lock held(guards);
  if (holder_ == nullptr) {
    holder_ = &os::parker::current();
    return true;
  }
  if (sync::has_passed(deadline)) return false;
  sync::wait_place place;
  sync::waiter self({"mutex", this, can_be_cancelled, look});
  self.enter(place, waiting_);
  return sync::wait_until_told(held, self, deadline);  // told means: handed over, still locked
}

void mutex::unlock() {
  const std::lock_guard guarded(guard_);
  LARDER_CHECK(holder_ != nullptr, "unlock of a mutex that is not locked");
  sync::wait_place* next = sync::tell_first(waiting_);
  const bool free = next == nullptr || is_mutant(base::mutant::handed_over_unlocked);
  holder_ = free ? nullptr : &next->who->owner;
  if (next != nullptr) wake(*next);
}

void mutex::look(const void* object, os::wait_subject& into) {
  auto& asked = *static_cast<mutex*>(const_cast<void*>(object));
  const std::lock_guard guarded(asked.guard_);
  into.holder = asked.holder_;
}

namespace {

struct place_of_shared : sync::wait_place {
  bool writer = false;
};

}  // namespace

shared_mutex::~shared_mutex() {
  LARDER_CHECK(writer_ == nullptr && readers_ == 0, "a shared_mutex is destroyed while it is locked");
}

void shared_mutex::lock() { enter(true, no_deadline, false); }
bool shared_mutex::try_lock() { return enter(true, sync::at_once, true); }
bool shared_mutex::try_lock_until(time_point deadline) { return enter(true, deadline, true); }
void shared_mutex::lock_shared() { enter(false, no_deadline, false); }
bool shared_mutex::try_lock_shared() { return enter(false, sync::at_once, true); }
bool shared_mutex::try_lock_shared_until(time_point deadline) { return enter(false, deadline, true); }

bool shared_mutex::enter(bool as_writer, time_point deadline, bool can_be_cancelled) {
  sync::guard_set guards(guard_);
  std::unique_lock held(guards);
  if (waiting_.first == nullptr && has_room_for(as_writer)) {
    admit(as_writer ? &os::parker::current() : nullptr);
    return true;
  }
  if (sync::has_passed(deadline)) return false;
  place_of_shared place;
  place.writer = as_writer;
  sync::waiter self({as_writer ? "shared_mutex" : "shared_mutex for reading", this, can_be_cancelled, look});
  self.enter(place, waiting_);
  // If it leaves untold, who stood behind it may have room. Still under the guard.
  const sync::at_exit look_again([this] {
    if (!is_mutant(base::mutant::leaver_forgets_others)) admit_waiting();
  });
  return sync::wait_until_told(held, self, deadline);
}

// Null admits a reader.
void shared_mutex::admit(os::parker* writer) {
  if (writer != nullptr) {
    writer_ = writer;
  } else {
    ++readers_;
  }
}

void shared_mutex::admit_waiting() {
  while (waiting_.first != nullptr) {
    const bool writer = static_cast<place_of_shared*>(waiting_.first)->writer;
    if (!has_room_for(writer) && !is_mutant(base::mutant::writer_joins_readers)) return;
    admit(writer ? &waiting_.first->who->owner : nullptr);
    wake(*sync::tell_first(waiting_));
  }
}

void shared_mutex::unlock() {
  const std::lock_guard guarded(guard_);
  LARDER_CHECK(writer_ != nullptr, "unlock of a shared_mutex that no writer holds");
  writer_ = nullptr;
  admit_waiting();
}

// Who reads is only counted.
void shared_mutex::look(const void* object, os::wait_subject& into) {
  auto& asked = *static_cast<shared_mutex*>(const_cast<void*>(object));
  const std::lock_guard guarded(asked.guard_);
  into.holder = asked.writer_;
}

void shared_mutex::unlock_shared() {
  const std::lock_guard guarded(guard_);
  LARDER_CHECK(readers_ > 0, "unlock_shared of a shared_mutex that no reader holds");
  --readers_;
  admit_waiting();
}

condition::~condition() { LARDER_CHECK(waiting_.first == nullptr, "a condition is destroyed while somebody waits"); }

void condition::wait(std::unique_lock<mutex>& held) { wait_until(held, no_deadline); }

bool condition::wait_until(std::unique_lock<mutex>& held, time_point deadline) {
  LARDER_CHECK(held.owns_lock(), "a wait for a condition with a mutex that is not locked");
  const sync::at_exit take_again([&held] { held.lock(); });  // when the guard is let go of
  sync::guard_set guards(guard_);
  std::unique_lock guarded(guards);
  sync::wait_place place;
  sync::waiter self({"condition", this, true});
  self.enter(place, waiting_);
  held.unlock();
  return sync::wait_until_told(guarded, self, deadline);
}

void condition::notify_one() {
  const std::lock_guard guarded(guard_);
  if (sync::wait_place* oldest = sync::tell_first(waiting_); oldest != nullptr) wake(*oldest);
}

void condition::notify_all() {
  const std::lock_guard guarded(guard_);
  sync::tell_all(waiting_);
}

}  // namespace larder

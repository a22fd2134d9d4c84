// SPDX-License-Identifier: Apache-2.0
//
// A waiter stands on the stack of who waits and hangs in a queue under a short lock. It is told by a flag written under
// that lock, and unparked under it: the owner looks at the flag under the lock too, so the waiter is still there.
#include <larder/sync.h>

#include "base/check.h"
#include "os/parker.h"

namespace larder {

struct sync::waiter {
  os::parker& owner = os::parker::current();
  waiter* next = nullptr;
  bool told = false;  // guarded by the guard of what it waits for
};

namespace {

void push(sync::waiter_queue& queue, sync::waiter& last) {
  (queue.first == nullptr ? queue.first : queue.last->next) = &last;
  queue.last = &last;
}

sync::waiter* pop(sync::waiter_queue& queue) {
  sync::waiter* oldest = queue.first;
  if (oldest != nullptr) queue.first = oldest->next;
  return oldest;
}

void remove(sync::waiter_queue& queue, sync::waiter& gone) {
  sync::waiter** link = &queue.first;
  sync::waiter* before = nullptr;
  while (*link != &gone) {
    before = *link;
    link = &before->next;
  }
  *link = gone.next;
  if (queue.last == &gone) queue.last = before;
}

void tell(sync::waiter& oldest) {
  oldest.told = true;
  oldest.owner.unpark();
}

// Parks until told. False if the deadline came first: then the waiter is out of the queue.
bool await(std::mutex& guard, sync::waiter_queue& queue, sync::waiter& self, time_point deadline) {
  for (;;) {
    const bool in_time = self.owner.park_until(deadline);
    const std::lock_guard<std::mutex> locked(guard);
    if (self.told) return true;
    if (in_time) continue;
    remove(queue, self);
    return false;
  }
}

}  // namespace

mutex::~mutex() { LARDER_CHECK(!locked_, "a mutex is destroyed while it is locked"); }

void mutex::lock() {
  sync::waiter self;
  {
    const std::lock_guard<std::mutex> guarded(guard_);
    if (!locked_) {
      locked_ = true;
      return;
    }
    push(waiting_, self);
  }
  await(guard_, waiting_, self, no_deadline);  // told means: handed over, still locked
}

bool mutex::try_lock() {
  const std::lock_guard<std::mutex> guarded(guard_);
  if (locked_) return false;
  locked_ = true;
  return true;
}

void mutex::unlock() {
  const std::lock_guard<std::mutex> guarded(guard_);
  LARDER_CHECK(locked_, "unlock of a mutex that is not locked");
  sync::waiter* next = pop(waiting_);
  if (next == nullptr) {
    locked_ = false;
  } else {
    tell(*next);
  }
}

condition::~condition() { LARDER_CHECK(waiting_.first == nullptr, "a condition is destroyed while somebody waits"); }

void condition::wait(std::unique_lock<mutex>& held) { wait_until(held, no_deadline); }

bool condition::wait_until(std::unique_lock<mutex>& held, time_point deadline) {
  sync::waiter self;
  {
    const std::lock_guard<std::mutex> guarded(guard_);
    push(waiting_, self);
  }
  held.unlock();
  const bool told = await(guard_, waiting_, self, deadline);
  held.lock();
  return told;
}

void condition::notify_one() {
  const std::lock_guard<std::mutex> guarded(guard_);
  if (sync::waiter* oldest = pop(waiting_); oldest != nullptr) tell(*oldest);
}

void condition::notify_all() {
  const std::lock_guard<std::mutex> guarded(guard_);
  while (sync::waiter* oldest = pop(waiting_)) tell(*oldest);
}

}  // namespace larder

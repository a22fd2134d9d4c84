// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include <larder/export.h>
#include <larder/units.h>

namespace larder {

namespace sync {

struct waiter;  // stands on the stack of who waits

// Waiters, oldest first.
struct waiter_queue {
  waiter* first = nullptr;
  waiter* last = nullptr;
};

}  // namespace sync

// A mutual exclusion that parks the task that must wait, and not its worker; a thread that must wait sleeps. First
// come, first served: unlock hands the mutex to the oldest waiter. May be held across parks and I/O. Not recursive.
class LARDER_API mutex {
 public:
  mutex() = default;
  // Dies if it is locked.
  ~mutex();
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  void lock();
  bool try_lock();
  // By whoever locked it. Dies if it is not locked.
  void unlock();

 private:
  std::mutex guard_;            // held for a few instructions, never over a park
  bool locked_ = false;         // guarded by guard_
  sync::waiter_queue waiting_;  // guarded by guard_
};

// A condition variable for tasks and threads. Wake-ups happen for a reason: `wait` returns only after a notification,
// but what was notified of may have changed again, so wait in a loop or with a predicate.
class LARDER_API condition {
 public:
  condition() = default;
  // Dies if anybody waits.
  ~condition();
  condition(const condition&) = delete;
  condition& operator=(const condition&) = delete;

  // Releases `held`, parks until notified, and takes it again.
  void wait(std::unique_lock<mutex>& held);
  // False if the deadline came first.
  bool wait_until(std::unique_lock<mutex>& held, time_point deadline);
  template <typename Predicate>
  void wait(std::unique_lock<mutex>& held, Predicate ready) {
    while (!ready()) wait(held);
  }
  template <typename Predicate>
  bool wait_until(std::unique_lock<mutex>& held, time_point deadline, Predicate ready) {
    while (!ready()) {
      if (!wait_until(held, deadline)) return ready();
    }
    return true;
  }
  // Wakes the oldest waiter, or all of them. With or without the mutex held. Who was woken may be on the way out of its
  // wait still: the condition outlives each `wait`, not only each notification.
  void notify_one();
  void notify_all();

 private:
  std::mutex guard_;            // held for a few instructions, never over a park
  sync::waiter_queue waiting_;  // guarded by guard_
};

}  // namespace larder

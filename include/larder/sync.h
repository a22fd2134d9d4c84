// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <mutex>

#include <larder/export.h>
#include <larder/units.h>
#include <larder/wait_queue.h>

namespace larder::os {
class parker;
struct wait_subject;
}  // namespace larder::os

namespace larder {

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
  // False if the deadline came first. A deadline that has passed makes it try_lock.
  bool try_lock_until(time_point deadline);
  // By whoever locked it. Dies if it is not locked.
  void unlock();

 private:
  bool lock_until(time_point deadline, bool can_be_cancelled);
  static void look(const void* object, os::wait_subject& into);

  sync::short_lock guard_;
  os::parker* holder_ = nullptr;  // guarded by guard_: who locked it, or was handed it; null if it is free
  sync::waiter_queue waiting_;    // guarded by guard_
};

// Held by one writer, or by any number of readers. First come, first served between both: a reader that comes while a
// writer waits stands behind it, and readers that stand together at the head enter together. So neither starves, and a
// reader must not lock it a second time: it would wait behind a writer that waits for the reader. Works with
// std::unique_lock and std::shared_lock.
class LARDER_API shared_mutex {
 public:
  shared_mutex() = default;
  // Dies if anybody holds it.
  ~shared_mutex();
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;

  // As a writer.
  void lock();
  bool try_lock();
  // False if the deadline came first: then who stood behind it goes on. A deadline that has passed makes it try_lock.
  bool try_lock_until(time_point deadline);
  // By whoever locked it. Dies if no writer holds it.
  void unlock();

  // As a reader.
  void lock_shared();
  // False also if somebody waits: nobody overtakes.
  bool try_lock_shared();
  bool try_lock_shared_until(time_point deadline);
  // Dies if no reader holds it.
  void unlock_shared();

 private:
  bool enter(bool as_writer, time_point deadline, bool can_be_cancelled);
  bool has_room_for(bool writer) const { return writer_ == nullptr && (!writer || readers_ == 0); }
  void admit(os::parker* writer);
  void admit_waiting();
  static void look(const void* object, os::wait_subject& into);

  sync::short_lock guard_;
  os::parker* writer_ = nullptr;  // guarded by guard_: that holds it
  std::size_t readers_ = 0;       // guarded by guard_: that hold it
  sync::waiter_queue waiting_;    // guarded by guard_; the first has no room
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

  // Releases `held`, parks until notified, and takes it again, whatever ends the wait. Dies if it is not locked.
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
  sync::short_lock guard_;
  sync::waiter_queue waiting_;  // guarded by guard_
};

}  // namespace larder

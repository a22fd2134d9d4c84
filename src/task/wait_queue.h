// SPDX-License-Identifier: Apache-2.0
//
// How tasks and threads wait for each other: for all that is public in sync.h, semaphore.h, channel.h and select.h.
//
// A waiter stands on the stack of who waits, with a place in each queue that it waits in. Each queue is under a guard,
// a short lock. Who tells it chooses one of its places, under that place's guard alone, and wakes it under the same
// guard; the waiter looks whether it was told, and leaves, with the guards of all its queues held. So
//
//   told ⇔ chosen != null;  exactly one place is ever chosen, for that is decided by a compare-and-swap;
//   a waiter that was told has what it was given, whatever its deadline says;
//   nobody touches a waiter, its places or what they point to once it holds all guards and has left its queues.
//
// Guards of several queues are taken in the order of their addresses, and nobody who holds one guard waits for another
// except in that order (a condition's guard is held when its mutex's is taken; no mutex is one of several). They are
// innermost: under them, only parkers are touched and elements of channels are moved. A report of tasks takes one at a
// time, to ask who holds a mutex, and its waiter meanwhile does not leave (os/wait_note.h).
#pragma once

#include <cstddef>
#include <mutex>
#include <span>
#include <utility>

#include <larder/units.h>
#include <larder/wait_queue.h>

#include "base/atomic.h"
#include "base/check.h"
#include "base/schedule.h"
#include "os/parker.h"

namespace larder::sync {

inline void short_lock::lock() {
#ifdef LARDER_SCHEDULED
  base::schedule::point(&locked_, base::schedule::access::lock);
  locked_ = true;
#else
  mutex_.lock();
#endif
}

inline void short_lock::unlock() {
#ifdef LARDER_SCHEDULED
  base::schedule::point(&locked_, base::schedule::access::unlock);
  locked_ = false;
#else
  mutex_.unlock();
#endif
}

// The guards of all queues that one waiter waits in: a lock of locks.
class guard_set {
 public:
  explicit guard_set(short_lock& only) : one_(&only), guards_(&one_, 1) {}
  // Brings `guards` into their order, each once; the span is used as long as the set lives.
  explicit guard_set(std::span<short_lock*> guards);
  guard_set(const guard_set&) = delete;
  guard_set& operator=(const guard_set&) = delete;

  void lock() {
    for (short_lock* each : guards_) each->lock();
  }
  void unlock() {
    for (short_lock* each : guards_) each->unlock();
  }

 private:
  short_lock* one_ = nullptr;
  std::span<short_lock*> guards_;
};

// What somebody waits for.
struct wait_reason {
  const char* kind;    // "mutex", "channel receive", ...; a literal
  const void* object;  // what is waited for
  // If not, nothing but being told or the deadline ends the wait: its caller may be unable to let an exception through.
  bool can_be_cancelled;
  // What reports may ask of the object; takes its guard.
  void (*look)(const void* object, os::wait_subject& into) = nullptr;
};

struct waiter {
  explicit waiter(const wait_reason& waits_for) : reason(waits_for) {}
  // Before its places go.
  ~waiter() {
    for ([[maybe_unused]] const wait_place* each = places; each != nullptr; each = each->sibling) {
      LARDER_ASSERT(each->queue == nullptr, "who waited for a %s has left, and stands in a queue still", reason.kind);
    }
  }
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  // Under the queue's guard: takes the place behind all others.
  void enter(wait_place& place, waiter_queue& queue);
  // Under any of the guards: only under the chosen place's own is it known that it was told.
  //
  // Relaxed: who told and who looks have held the same guard.
  bool told() const { return chosen.load(base::memory_order_relaxed) != nullptr; }

  const wait_reason reason;
  os::parker& owner = os::parker::current();
  wait_place* places = nullptr;  // all of them, by their siblings; the waiter's own
  base::atomic<wait_place*> chosen{nullptr};
};

// Under the queue's guard: the oldest waiter that nobody has told, out of the queue and told; null if there is none.
// The caller gives it what it waits for, and wakes it before it lets go of the guard.
wait_place* tell_first(waiter_queue& queue);
inline void wake(wait_place& told) { told.who->owner.unpark(); }
// The same for all of them.
inline void tell_all(waiter_queue& queue) {
  while (wait_place* oldest = tell_first(queue)) wake(*oldest);
}

// With `held` held and the waiter in its queues: the one place where tasks and threads wait for each other. Lets go of
// the guards, parks until the waiter is told or the deadline has passed, and holds them again. Then the waiter is in no
// queue any more. True if it was told. If `can_be_cancelled`, and the caller was before it was told, it throws
// task::cancelled, in the state in which it would return false.
bool wait_until_told(std::unique_lock<guard_set>& held, waiter& self, time_point deadline);

// Deadlines that do not wait. The first never reads the clock.
inline constexpr time_point at_once = time_point::min();
bool has_passed(time_point deadline);

// Does something at the end of its scope, also when an exception ends it.
template <typename Action>
class at_exit {
 public:
  explicit at_exit(Action action) : action_(std::move(action)) {}
  ~at_exit() { action_(); }
  at_exit(const at_exit&) = delete;
  at_exit& operator=(const at_exit&) = delete;

 private:
  Action action_;
};

}  // namespace larder::sync

// SPDX-License-Identifier: Apache-2.0
//
// What the synchronisation of tasks and threads is made of: members of public classes, with nothing to call.
#pragma once

#include <mutex>

namespace larder::sync {

struct waiter;        // who waits; on its own stack
class guard_set;      // what it holds
struct waiter_queue;  // where it does

// A place in a queue, on the stack of who waits: one in most waits, one for each case in a select.
struct wait_place {
  waiter* who = nullptr;
  waiter_queue* queue = nullptr;  // null while it is in none
  wait_place* next = nullptr;     // these two: in the queue
  wait_place* previous = nullptr;
  wait_place* sibling = nullptr;  // another place of the same waiter
};

// Waiters, oldest first.
struct waiter_queue {
  wait_place* first = nullptr;
  wait_place* last = nullptr;
};

// Held for a few instructions, never over a park.
class short_lock {
 public:
  inline void lock();
  inline void unlock();

 private:
#ifdef LARDER_SCHEDULED  // where the deterministic scheduler has to see it
  bool locked_ = false;
#else
  std::mutex mutex_;
#endif
};

}  // namespace larder::sync

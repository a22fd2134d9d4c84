// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/atomic.h"
#include "base/mutant.h"

namespace larder::base {

// A lock-free stack that any thread may push to and that is only ever emptied whole (the QEMU coroutine pool's release
// list). Nobody pops one element, so nobody compares a head with one that was taken and came back: there is no ABA
// problem, with any number of takers.
//
//   push:      link.next = head; CAS head → link (release)
//   take_all:  exchange head → nothing (acquire)
//
// Invariant: an element is reachable from `head_` exactly from its push until the take_all that returns it.
struct stack_link {
  // Written by the pusher before its release, read by the taker after its acquire.
  stack_link* next = nullptr;
};

class take_all_stack {
 public:
  take_all_stack() = default;
  take_all_stack(const take_all_stack&) = delete;
  take_all_stack& operator=(const take_all_stack&) = delete;

  // Adds an element that is on no stack. True if the stack was empty before: the pusher then wakes the taker.
  bool push(stack_link& link) {
    stack_link* head = head_.load(memory_order_relaxed);  // only a guess: the CAS proves it
    do {
      link.next = head;
      // Release publishes link.next and the element to take_all's acquire.
    } while (!head_.compare_exchange_weak(head, &link, memory_order_seq_cst, memory_order_relaxed));
    return head == nullptr;
  }

  // Takes everything, last pushed first, linked through `next`.
  stack_link* take_all() {
    if (is_mutant(mutant::pop_one)) return pop_one();
    if (is_mutant(mutant::take_without_exchange)) {
      stack_link* taken = head_.load();
      head_.store(nullptr);
      return taken;
    }
    if (head_.load(memory_order_relaxed) == nullptr) return nullptr;  // saves the exchange; a race is only a late look
    return head_.exchange(nullptr, memory_order_acquire);             // partner: push's release
  }

  // The same in the order of pushing.
  stack_link* take_all_in_order() {
    stack_link* reversed = nullptr;
    for (stack_link* link = take_all(); link != nullptr;) {
      stack_link* next = link->next;
      link->next = reversed;
      reversed = link;
      link = next;
    }
    return reversed;
  }

  bool empty() const { return newest() == nullptr; }
  // What was pushed last, or null: a moment ago, and only to be compared.
  const stack_link* newest() const { return head_.load(memory_order_seq_cst); }

 private:
  // What must not be: an element that was taken and came back makes the compare-and-swap succeed in error.
  stack_link* pop_one() {
    for (stack_link* head = head_.load(); head != nullptr;) {
      stack_link* next = head->next;
      if (!head_.compare_exchange_strong(head, next)) continue;
      head->next = nullptr;
      return head;
    }
    return nullptr;
  }

  atomic<stack_link*> head_{nullptr};
};

}  // namespace larder::base

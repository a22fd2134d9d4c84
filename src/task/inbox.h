// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/atomic.h"
#include "base/mutant.h"
#include "base/take_all_stack.h"

namespace larder::task_layer {

// What other threads leave for the owner of a queue, and the word that says whether it sleeps.
//
// No wake-up is lost: the sleeper sets `sleeping_`, then looks at the stack; who pushes, pushes, then looks at
// `sleeping_` (all sequentially consistent), so one of them sees the other.
class inbox {
 public:
  // Any thread. True if the owner sleeps, or is about to: this caller, and no other, must wake it.
  bool push(base::stack_link& link) {
    if (base::is_mutant(base::mutant::wake_before_push)) {
      const bool asleep = sleeping_.load() && sleeping_.exchange(false);
      stack_.push(link);
      return asleep;
    }
    stack_.push(link);
    return claim_sleeper();
  }

  // Any thread. True if the owner sleeps, or is about to, and nobody wakes it yet: this caller must.
  bool claim_sleeper() { return sleeping_.load() && sleeping_.exchange(false); }
  bool asleep() const { return sleeping_.load(); }
  bool empty() const { return stack_.empty(); }
  // Any thread, a moment ago: null for nothing.
  const base::stack_link* newest() const { return stack_.newest(); }

  // Everything, in the order of pushing: for the owner, and for who takes work from it.
  base::stack_link* take_all_in_order() { return stack_.take_all_in_order(); }

  // The rest is the owner's. Before it sleeps. False if something has come meanwhile: it must not.
  bool begin_sleep() {
    if (base::is_mutant(base::mutant::look_before_sleeping)) {
      const bool was_empty = stack_.empty();
      sleeping_ = true;
      return was_empty;
    }
    if (base::is_mutant(base::mutant::sleeping_unfenced)) {
      sleeping_.store(true, base::memory_order_release);
    } else {
      sleeping_ = true;
    }
    return stack_.empty();
  }
  void end_sleep() { sleeping_ = false; }

 private:
  base::take_all_stack stack_;
  base::atomic<bool> sleeping_{false};  // or about to
};

}  // namespace larder::task_layer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "os/parker.h"

namespace larder::budget {
struct reclaimed;
struct tree;
}  // namespace larder::budget

namespace larder {

// A place in the queue for memory, for those who wait for several things at once: an object cache's getter waits for a
// slab's memory and for an object that somebody puts back, whichever comes first.
//
// The owner parks on its own parker and asks `granted` whenever it wakes; the memory is charged from the moment that it
// says true. Used by one thread or task; it stays where it is while it is queued.
class budget_ticket : public base::list_link<> {
 public:
  budget_ticket(memory_budget& budget, bytes amount);
  // Leaves the queue, or gives the memory back if it was granted and not taken.
  ~budget_ticket();
  budget_ticket(const budget_ticket&) = delete;
  budget_ticket& operator=(const budget_ticket&) = delete;

  // Takes the charge at once or joins the queue. ENOMEM if it can never be met.
  result<void> begin();
  // Whether the memory is charged now. Does the queue's reclaiming when it is this waiter's turn to, but asks no
  // reclaimer once the deadline has passed: call it before each park, and park only on false.
  bool granted(time_point deadline = no_deadline);
  // Whether it can never be met any more: the limit came down meanwhile. Known once `granted` has returned false.
  bool refused() const { return phase_ == phase::refused; }
  // The memory is the owner's from now on.
  void take();

  // Hands free memory to the tickets of `budget`'s tree, oldest first. Costs one load when nobody waits.
  static void grant_waiting(memory_budget& budget);
  // Lets the oldest waiter reclaim if there is reason to and nobody does: whoever leaves, brings hope, or ends a pause,
  // calls this. The tree's mutex is held, in the next too.
  static void wake_leader(budget::tree& tree);
  // Reclaiming may find something from now on.
  static void bring_hope(budget::tree& tree);
  // Tells that the oldest waiter waits in vain; drops the mutex meanwhile.
  static void tell_stalled(budget::tree& tree, base::unique_lock& locked);
  // After a change of a limit: who waits may have room now, or never any more. `scans` is false for a mutant.
  static void look_again(budget::tree& tree, bool scans);
  // In a forked child: those who waited, wait in the parent. The tree's mutex is held.
  static void forget_all(budget::tree& tree);
  // Dies if a queued ticket has room and nobody older waits in its way. The tree's mutex is held.
  static void check_none_fits(budget::tree& tree);

 private:
  friend class memory_budget;
  enum class phase : unsigned char { idle, queued, granted, refused };

  static void scan(budget::tree& tree);
  static budget::reclaimed reclaim_for_all(budget::tree& tree, base::unique_lock& locked, time_point deadline);
  static bool node_is_awaited(const budget::tree& tree, const memory_budget* node);
  memory_budget* charge_path(std::uint64_t scan_number);
  void block_at(memory_budget* node);
  void leave_queue(budget::tree& tree);
  bool can_be_met() const;
  // The tree's mutex is held in both.
  static void refuse_hopeless(budget::tree& tree);
  static void cut_limits(budget::tree& tree, std::uint64_t scan_number);

  memory_budget& budget_;
  const bytes amount_;
  os::parker& owner_;
  phase phase_ = phase::idle;            // what the owner knows; the owner's alone
  bool handed_over_ = false;             // a scan charged it and took it off the queue; guarded by the tree's mutex
  bool turned_away_ = false;             // taken off the queue for ever; guarded by the tree's mutex
  memory_budget* blocked_at_ = nullptr;  // where it did not fit; guarded by the tree's mutex
};

}  // namespace larder

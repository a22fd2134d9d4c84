// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <larder/memory_budget.h>

#include "base/atomic.h"
#include "base/counter.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "base/registry.h"
#include "budget/ticket.h"
#include "os/clock.h"
#include "os/fork.h"

namespace larder::budget {

// A reclaimer's membership in a tree. Guarded by the tree's mutex.
struct reclaimer_entry : base::list_link<> {
  reclaimer* source = nullptr;
  memory_budget* node = nullptr;
  reclaim_stage stage = reclaim_stage::user;
  bool busy = false;                  // somebody is inside source->reclaim
  std::uint64_t dry_in_round = 0;     // the newest round in which it gave less than it was asked for
  os::parker* rest_waiter = nullptr;  // waits for !busy, to remove the entry or to keep others out
};

// A budget's membership in its tree.
struct budget_node : base::list_link<> {};

struct node_state;

bytes percent_of(bytes amount, std::uint8_t percent);

// In percent of what may be charged: where the page daemon begins, and where it ends.
struct marks {
  std::uint8_t high;
  std::uint8_t low;
};
// For budgets that name none. Tests that count every page change them.
extern marks default_marks;

// What the page daemon knows of a tree, and of one whose root follows the system. Guarded by the daemon's mutex.
struct daemon_entry : base::list_link<> {
  time_point due = no_deadline;  // when it is to look at the tree next
};
struct follower : base::list_link<follower> {};

// What the budgets of one tree share.
struct tree final : os::fork_participant, std::enable_shared_from_this<tree>, daemon_entry, follower {
  tree();
  ~tree() override;
  void before_fork() override { guard.lock_for_fork(); }
  void in_parent() override { guard.unlock_after_fork(); }
  void in_child() override;

  // The number of a round of reclaiming that begins (fair_share.cc). `guard` is held.
  std::uint64_t begin_round() { return ++rounds; }

  // The node without a parent, which is there before all others and goes last; null at the tree's very beginning and
  // end. `guard` is held.
  node_state* root() const;

  // These three for the back-off of those who reclaim for their tickets (ticket.cc). `guard` is held.
  bool backs_off() const { return pause_end != no_deadline && os::now() < pause_end; }
  void note_round(bool hopeless);
  void end_pause();

  base::mutex guard{base::lock_rank::budget};
  base::intrusive_list<budget_ticket> queue;           // guarded by `guard`; oldest first
  base::intrusive_list<reclaimer_entry> entries;       // guarded by `guard`; in the order of their stages
  base::intrusive_list<reclaimer_entry> shareholders;  // guarded by `guard` (even_out.cc)
  base::intrusive_list<budget_node> nodes;             // guarded by `guard`; every budget of the tree
  std::uint64_t scans = 0;                             // guarded by `guard`; numbers the passes over the queue
  std::uint64_t rounds = 0;                            // guarded by `guard`; numbers the rounds of reclaiming
  bool leading = false;                                // guarded by `guard`; a waiter is reclaiming for all
  bool hopeful = false;                                // guarded by `guard`; reclaiming may find something
  bool promised = false;                               // guarded by `guard`; something was said to be reclaimable
  std::uint32_t broken_promises = 0;       // guarded by `guard`; rounds in a row that found nothing after that
  time_point pause_end = no_deadline;      // guarded by `guard`; nobody reclaims for tickets before
  bool stall_to_tell = false;              // guarded by `guard`; for the daemon to tell
  bool system_presses = false;             // guarded by `guard`; for the daemon to give back
  std::uint32_t cuts = 0;                  // guarded by `guard`; nodes whose limit is to come down
  base::atomic<std::uint32_t> waiting{0};  // tickets in the queue, and cuts; written under `guard`, read without
};

// A budget's insides.
struct node_state final : budget_node {
  node_state(memory_budget& self, std::string_view name, memory_budget::options chosen, memory_budget* parent);
  ~node_state();

  // Adds to `occupied` if the sum stays within `most`. True if it did.
  bool add(bytes amount, bytes most);
  void subtract(bytes amount);
  // After a charge: the peak, and whether the page daemon has something to do.
  void note_use();
  void note_peak();
  // What `occupied` may be, with the reserve and for everybody. Relaxed: a ceiling only rises, so an old one only
  // admits less, as if the attempt had come before the change.
  bytes full() const { return {ceiling.load(base::memory_order_relaxed)}; }
  bytes open() const { return full() - reserve; }
  // The most that can ever be charged by who may not use the reserve. Relaxed: as above, or under the tree's mutex.
  bytes open_limit() const { return bytes{wanted_limit.load(base::memory_order_relaxed)} - reserve; }

  // The same for what is only useful to have: up to the high mark.
  bytes spare() const { return std::min(bytes{high_mark.load(base::memory_order_relaxed)}, open()); }
  // How much there is to that; and how far the use is past it.
  bytes room_to_mark() const {
    const bytes now{occupied.load(base::memory_order_relaxed)};
    return now < spare() ? spare() - now : bytes{};
  }
  bytes beyond_mark() const {
    const bytes now{occupied.load(base::memory_order_relaxed)};
    return spare() < now ? now - spare() : bytes{};
  }

  struct usage {
    bytes used;
    bytes limit;
  };
  // Both of one instant. May take the tree's mutex, unless the caller holds it: then nothing changes meanwhile.
  usage look() const;

  // Has the lower of `own_limit` and `system_limit` hold, as soon as it can; under the tree's mutex, as the next four.
  void limit_changed();
  void raise_limit(bytes by);
  // Takes away what is free, up to what the limit has still to come down by. True if it is down.
  bool lower_limit();
  bytes to_come_down() const;
  void set_cut(bool begins);
  void place_mark();

  // Has the page daemon look at this budget, once until it has (page_daemon.cc). With the tree's mutex or without.
  void call_daemon();
  // What the daemon is to reclaim here: down to the low mark, and to the limit that was set. Under the tree's mutex.
  bytes daemon_need() const;
  bool is_above_mark() const { return occupied.load() > high_mark.load(); }

  const std::string name;
  memory_budget& self;
  const bytes reserve;
  const marks its_marks;
  memory_budget* const parent;
  const std::shared_ptr<budget::tree> tree;
  base::atomic<std::uint64_t> occupied{0};           // what is used, and what is withheld
  base::passive_atomic<std::uint64_t> ceiling;       // written under the tree's mutex; never falls
  base::passive_atomic<std::uint64_t> withheld{0};   // the same; as far as the limit is below the ceiling
  base::atomic<std::uint32_t> limit_changes{0};      // the same; odd while the three change
  base::passive_atomic<std::uint64_t> wanted_limit;  // the same; the lower of these two
  bytes own_limit;                                   // the same
  bytes system_limit = unlimited;                    // the same
  base::passive_atomic<std::uint64_t> high_mark;     // the same; of `occupied`
  bool cut = false;                                  // guarded by the tree's mutex; the limit has still to come down
  base::passive_atomic<std::uint64_t> peak{0};
  base::counter waits;
  base::atomic<bool> daemon_called{false};  // a visit of the page daemon is due
  bool under_pressure = false;              // guarded by the tree's mutex; from the high mark to the low one
  bool lowering = false;                    // guarded by the tree's mutex; from a cut to when its end is told
  time_point next_visit = no_deadline;      // guarded by the tree's mutex; that is due by itself
  time_point pause_end{};                   // guarded by the tree's mutex; the daemon does nothing before
  std::uint32_t dry_rounds = 0;             // guarded by the tree's mutex; of the daemon, in a row
  std::uint64_t visited_scan = 0;           // guarded by the tree's mutex; the daemon's last visit
  base::counter daemon_rounds;
  base::counter daemon_bytes;
  std::shared_ptr<const std::function<void(const budget_event&)>> told;  // guarded by the tree's mutex
  std::uint32_t being_told = 0;                                          // guarded by the tree's mutex; calls of `told`
  os::parker* telling_ends = nullptr;                                    // waits for none
  base::atomic<std::uint32_t> blocked_here{0};  // tickets that did not fit here, and a cut; under the tree's mutex
  std::uint64_t blocked_scan = 0;               // the last scan that found this node full; guarded by the tree's mutex
  std::uint64_t asked_scan = 0;  // the last round of reclaiming that served this node; guarded by the tree's mutex
  base::atomic<std::uint32_t> children{0};
  std::optional<base::registration> registered;  // while the budget is whole
};

}  // namespace larder::budget

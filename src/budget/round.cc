// SPDX-License-Identifier: Apache-2.0
//
// What the page daemon does for a budget. `daemon_called` says that a visit is due: a charge that passes the high mark
// sets it, or a limit that is to come down, and calls; a visit clears it and looks. A budget is
//
//   at rest   nothing to do
//   at work   from above the high mark, or a limit that is to come down, to the low mark, in steps, visit by visit, as
//             long as it finds anything
//   pausing   a visit found nothing: not again before the end of a pause that doubles with each such visit (KF-50), and
//             then only if charges went on above the mark: what nobody needs more of is left alone (KF-46). A limit
//             that has still to come down is tried again by itself.
//
// No crossing is missed: a charge adds, then looks whether a visit is due; a visit clears that, then looks what is used
// (both sequentially consistent; models/page_daemon.pml).
//
// For the marks it asks the first four stages. What the CPUs' arrays and idle stacks hold is made again at the price of
// every user's fast path, so the last stage is for those who wait for memory, and for limits that come down.
#include "budget/round.h"

#include "base/mutant.h"
#include "budget/event.h"
#include "budget/reclaim.h"
#include "budget/ticket.h"
#include "os/clock.h"

namespace larder::budget {
namespace {

// So that other trees have their turn.
constexpr bytes visit_max = reclaim_chunk * 16;

// In the tree's mutex, as all below. Null once it is gone.
node_state* find(const tree& in, const memory_budget* node) {
  for (budget_node* each = in.nodes.front(); each != nullptr; each = in.nodes.after(*each)) {
    if (&static_cast<node_state&>(*each).self == node) return static_cast<node_state*>(each);
  }
  return nullptr;
}

node_state* next_called(const tree& in, std::uint64_t visit) {
  for (budget_node* each = in.nodes.front(); each != nullptr; each = in.nodes.after(*each)) {
    auto& at = static_cast<node_state&>(*each);
    if (at.visited_scan != visit && (at.daemon_called || at.lowering)) return &at;
  }
  return nullptr;
}

// Who waits may have passed over a reclaimer that the daemon was inside.
void bring_hope(tree& in, const reclaimed& got) {
  if (got.given.count == 0 || base::is_mutant(base::mutant::daemon_brings_no_hope)) return;
  budget_ticket::bring_hope(in);
}

time_point rest(node_state& at) {
  at.under_pressure = false;
  at.dry_rounds = 0;
  at.next_visit = no_deadline;
  if (base::is_mutant(base::mutant::daemon_clears_late)) at.daemon_called = false;
  return no_deadline;
}

// The next visit is due by itself.
time_point come_again(node_state& at, time_point when) {
  at.daemon_called = true;
  at.next_visit = when;
  return when;
}

time_point pause(base::unique_lock& locked, node_state& at, bool passed_over, time_point now) {
  if (!passed_over) ++at.dry_rounds;
  at.pause_end = now + pause_after(at.dry_rounds + 2);
  at.next_visit = no_deadline;
  const time_point due = at.cut ? come_again(at, at.pause_end) : no_deadline;
  if (at.dry_rounds == 1 && !passed_over) tell(locked, at, budget_event::kind::stalled, at.daemon_need());
  return due;
}

time_point serve(tree& in, base::unique_lock& locked, node_state& at, time_point now) {
  if (at.lowering && !at.cut) {
    at.lowering = false;
    tell(locked, at, budget_event::kind::limit_lowered, {});
  }
  if (at.next_visit != no_deadline && now < at.next_visit) return at.next_visit;
  if (!base::is_mutant(base::mutant::daemon_kept_called) && !base::is_mutant(base::mutant::daemon_clears_late)) {
    at.daemon_called = false;
  }
  const bytes need = at.daemon_need();
  const bool goes_on = at.cut || at.under_pressure || at.is_above_mark();
  if (need.count == 0 || !goes_on) return rest(at);
  if (now < at.pause_end) return come_again(at, at.pause_end);
  if (!at.cut && !std::exchange(at.under_pressure, true)) tell(locked, at, budget_event::kind::pressure, need);
  const memory_budget* const node = &at.self;
  const reclaim_stage last = at.cut ? reclaim_stage::last_resort : reclaim_stage::user;
  const auto go_on = [&in, node] {
    const node_state* still = find(in, node);
    return still != nullptr && still->daemon_need().count > 0;
  };
  const reclaimed got = reclaim_within(in, locked, node, std::min(need, visit_max), last, go_on);
  bring_hope(in, got);
  node_state* still = find(in, node);
  if (still == nullptr) return no_deadline;
  still->daemon_rounds.add();
  still->daemon_bytes.add(got.given.count);
  if (still->daemon_need().count == 0) return rest(*still);
  if (got.given.count == 0) return pause(locked, *still, got.passed_over, now);
  still->dry_rounds = 0;
  return come_again(*still, now);
}

// A sixteenth of what is used, of all stages: what the system lacks it takes from everybody, and it says so again.
void give_back_to_system(tree& in, base::unique_lock& locked) {
  node_state* const root = in.root();
  const bytes wanted = root->look().used / 16;
  tell(locked, *root, budget_event::kind::system_pressure, wanted);
  const reclaimed got =
      reclaim_within(in, locked, &root->self, wanted, reclaim_stage::last_resort, [] { return true; });
  bring_hope(in, got);
  if (node_state* still = in.root()) {
    still->daemon_rounds.add();
    still->daemon_bytes.add(got.given.count);
  }
}

}  // namespace

std::chrono::nanoseconds pause_after(std::uint32_t failures) {
  constexpr std::uint32_t doublings_max = 10;
  return std::chrono::milliseconds(1) * (1U << std::min(failures, doublings_max));
}

time_point reclaim_round(tree& in, time_point now) {
  base::unique_lock locked(in.guard);
  if (in.pause_end <= now && !base::is_mutant(base::mutant::pause_never_ends)) {
    in.pause_end = no_deadline;
    budget_ticket::wake_leader(in);
  }
  if (std::exchange(in.stall_to_tell, false)) budget_ticket::tell_stalled(in, locked);
  if (std::exchange(in.system_presses, false) && in.root() != nullptr) give_back_to_system(in, locked);
  const std::uint64_t visit = ++in.scans;
  time_point due = in.pause_end;
  while (node_state* at = next_called(in, visit)) {
    at->visited_scan = visit;
    due = std::min(due, serve(in, locked, *at, now));
  }
  return due;
}

}  // namespace larder::budget

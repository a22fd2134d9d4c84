// SPDX-License-Identifier: Apache-2.0
//
// What the page daemon does for a budget. Each is in one of four states, and `daemon_called` is true in all but the
// first:
//
//   at rest   until a charge passes the high mark, or a limit is set that is lower than what is used
//   called    until the daemon comes
//   at work   reclaims down to the low mark, or the lower limit, in steps, visit by visit, as long as it finds anything
//   pausing   a visit found nothing: not again before the end of a pause that doubles with each such visit (KF-50).
//             Then it rests, until the next charge above the mark: what nobody needs more of is left alone (KF-46).
//             A limit that has still to come down needs no charge: it is tried again.
//
// No crossing is missed: a charge adds, then looks whether the daemon was called; the daemon says that it rests, then
// looks whether more than the mark is used (both sequentially consistent).
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

time_point rest(node_state& at, time_point now) {
  at.under_pressure = false;
  at.dry_rounds = 0;
  if (!base::is_mutant(base::mutant::daemon_kept_called)) at.daemon_called = false;
  if (base::is_mutant(base::mutant::daemon_rests_unlooked)) return no_deadline;
  return at.is_above_mark() && !at.daemon_called.exchange(true) ? now : no_deadline;
}

time_point pause(base::unique_lock& locked, node_state& at, bool passed_over, time_point now) {
  if (!passed_over) ++at.dry_rounds;
  const time_point end = now + pause_after(at.dry_rounds + 2);
  at.pausing = true;
  at.pause_end = end;
  if (at.dry_rounds == 1 && !passed_over) tell(locked, at, budget_event::kind::stalled, at.daemon_need());
  return end;
}

time_point serve(tree& in, base::unique_lock& locked, node_state& at, time_point now) {
  if (at.lowering && !at.cut) {
    at.lowering = false;
    tell(locked, at, budget_event::kind::limit_lowered, {});
  }
  if (at.pausing && now < at.pause_end && at.daemon_need().count > 0) return at.pause_end;
  if (std::exchange(at.pausing, false) && !at.cut) {
    at.daemon_called = false;
    return no_deadline;
  }
  const bytes need = at.daemon_need();
  if (need.count == 0) return rest(at, now);
  if (!at.cut && !std::exchange(at.under_pressure, true)) tell(locked, at, budget_event::kind::pressure, need);
  const memory_budget* const node = &at.self;
  const reclaim_stage last = at.cut ? reclaim_stage::last_resort : reclaim_stage::user;
  const auto go_on = [&in, node] {
    const node_state* still = find(in, node);
    return still != nullptr && still->daemon_need().count > 0;
  };
  const reclaimed got = reclaim_within(in, locked, node, std::min(need, visit_max), last, go_on);
  node_state* still = find(in, node);
  if (still == nullptr) return no_deadline;
  still->daemon_rounds.add();
  still->daemon_bytes.add(got.given.count);
  if (still->daemon_need().count == 0) return rest(*still, now);
  if (got.given.count == 0) return pause(locked, *still, got.passed_over, now);
  still->dry_rounds = 0;
  return now;
}

// A sixteenth of what is used, of all stages: what the system lacks it takes from everybody, and it says so again.
void give_back_to_system(tree& in, base::unique_lock& locked) {
  node_state* const root = static_cast<node_state*>(in.nodes.front());  // no node is older
  const bytes wanted = root->look().used / 16;
  tell(locked, *root, budget_event::kind::system_pressure, wanted);
  const reclaimed got =
      reclaim_within(in, locked, &root->self, wanted, reclaim_stage::last_resort, [] { return true; });
  if (node_state* still = static_cast<node_state*>(in.nodes.front())) {
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
  if (std::exchange(in.system_presses, false) && in.nodes.front() != nullptr) give_back_to_system(in, locked);
  const std::uint64_t visit = ++in.scans;
  time_point due = in.pause_end;
  while (node_state* at = next_called(in, visit)) {
    at->visited_scan = visit;
    due = std::min(due, serve(in, locked, *at, now));
  }
  return due;
}

}  // namespace larder::budget

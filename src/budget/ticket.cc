// SPDX-License-Identifier: Apache-2.0
//
// The queue for memory. Tickets wait in one list per tree, oldest first. A pass over it (`scan`) charges for each
// ticket that fits and marks the node where one does not; a later ticket whose path has a marked node waits too, so
// nobody is overtaken at a node, and nobody waits for a node that is not theirs. A pass ends where the root is full:
// all who are behind pass through it, and are still noted where they did not fit before. A pass follows every release,
// so freed bytes are charged to the oldest fitting ticket before its owner even wakes (KF-44, KF-53).
//
// No release is lost to a ticket that enters meanwhile: it enters, then scans; a releaser subtracts, then looks whether
// anybody has entered (both sequentially consistent).
//
// Who waits also reclaims: one of them at a time (`leading`), for the oldest ticket of each full node, while there is
// hope. Hope starts with a new ticket, continues while reclaiming gives something, and comes back when a reclaimer says
// that something became reclaimable; without it all sleep (KF-46), and the need of the oldest drives it, whatever the
// fill (KF-47). The leader that leaves with its memory wakes the next.
//
// A reclaimer may promise what it cannot keep, time and again: a page whose write fails at once is reclaimable again.
// So after `promises_max` rounds in a row that a promise began and that found nothing, rounds pause (pause_after),
// longer each time, and no promise cuts a pause short (KF-50). The page daemon ends it.
#include "budget/ticket.h"

#include <algorithm>

#include "base/check.h"
#include "base/mutant.h"
#include "budget/account.h"
#include "budget/event.h"
#include "budget/page_daemon.h"
#include "budget/reclaim.h"
#include "budget/round.h"
#include "budget/tree.h"
#include "os/clock.h"

namespace larder {
namespace {

constexpr std::uint32_t promises_max = 8;

bool has_passed(time_point deadline) { return deadline != no_deadline && os::now() >= deadline; }

}  // namespace

budget_ticket::budget_ticket(memory_budget& budget, bytes amount)
    : budget_(budget), amount_(amount), owner_(os::parker::current()) {}

budget_ticket::~budget_ticket() {
  if (phase_ == phase::idle || phase_ == phase::refused) return;
  if (phase_ == phase::queued) {
    budget::tree& tree = *budget_.state_->tree;
    const base::lock locked(tree.guard);
    if (!handed_over_ && !turned_away_) {
      leave_queue(tree);
      scan(tree);  // who stood behind it may fit
    }
    wake_leader(tree);  // its turn to reclaim may have come just now
    if (!handed_over_ || base::is_mutant(base::mutant::timeout_drops_grant)) return;
  }
  budget_.release(amount_);
}

result<void> budget_ticket::begin() {
  if (budget_.try_charge(amount_)) {
    phase_ = phase::granted;
    return {};
  }
  if (!can_be_met()) return error_from(ENOMEM);
  LARDER_CHECK(!owner_.reclaiming, "budget \"%s\": a reclaimer waits for memory", budget_.name().c_str());
  budget::tree& tree = *budget_.state_->tree;
  const base::lock locked(tree.guard);
  if (!can_be_met()) return error_from(ENOMEM);  // the limit has come down this instant
  phase_ = phase::queued;
  tree.queue.push_back(*this);
  const bool late = base::is_mutant(base::mutant::scan_before_enter);
  if (!late) ++tree.waiting;
  tree.hopeful = true;
  scan(tree);
  if (late) ++tree.waiting;
  if (!handed_over_) {
    if (blocked_at_ == nullptr) block_at(&tree.root()->self);  // the pass ended before it
    budget_.state_->waits.add();
  }
  return {};
}

bool budget_ticket::granted(time_point deadline) {
  if (phase_ != phase::queued) return phase_ == phase::granted;
  budget::tree& tree = *budget_.state_->tree;
  base::unique_lock locked(tree.guard);
  while (!handed_over_ && !turned_away_ && tree.hopeful && !tree.leading && !tree.backs_off() &&
         !has_passed(deadline)) {
    tree.leading = true;
    tree.hopeful = false;
    const budget::reclaimed round = reclaim_for_all(tree, locked, deadline);
    tree.leading = false;
    if (base::is_mutant(base::mutant::hope_forgotten)) tree.hopeful = false;
    // A round that was cut short leaves hope to the next leader.
    if (round.given.count > 0 || has_passed(deadline)) tree.hopeful = true;
    if (round.given.count > 0 || !has_passed(deadline)) tree.note_round(round.given.count == 0 && !round.passed_over);
  }
  if (!handed_over_) {
    if (turned_away_) phase_ = phase::refused;
    if (turned_away_) wake_leader(tree);
    return false;
  }
  phase_ = phase::granted;
  wake_leader(tree);
  return true;
}

// Whether some ticket waits for room there. A node that nobody waits for may be gone.
bool budget_ticket::node_is_awaited(const budget::tree& tree, const memory_budget* node) {
  for (budget_ticket* each = tree.queue.front(); each != nullptr; each = tree.queue.after(*each)) {
    if (each->blocked_at_ == node) return true;
  }
  return false;
}

// One round of reclaiming: for each full node, once, what its oldest ticket lacks. The mutex is dropped meanwhile, so
// the queue is looked at afresh each time, and a node is only an identity once its ticket may be gone.
budget::reclaimed budget_ticket::reclaim_for_all(budget::tree& tree, base::unique_lock& locked, time_point deadline) {
  const std::uint64_t round = ++tree.scans;
  budget::reclaimed sum;
  for (budget_ticket* ticket = tree.queue.front(); ticket != nullptr;) {
    const memory_budget* node = ticket->blocked_at_;
    budget::node_state& at = *node->state_;
    if (at.asked_scan == round) {
      ticket = tree.queue.after(*ticket);
      continue;
    }
    at.asked_scan = round;
    const bytes wanted = at.look().used + ticket->amount_;
    const bytes lacking = wanted > at.open_limit() ? wanted - at.open_limit() : ticket->amount_;
    const auto go_on = [&tree, node, deadline] { return node_is_awaited(tree, node) && !has_passed(deadline); };
    const budget::reclaimed from =
        budget::reclaim_within(tree, locked, node, lacking, reclaim_stage::last_resort, go_on);
    sum.given += from.given;
    sum.passed_over = sum.passed_over || from.passed_over;
    ticket = tree.queue.front();
  }
  return sum;
}

// Lets the oldest waiter reclaim if there is reason to and nobody does: whoever leaves, or brings hope, calls this.
void budget_ticket::wake_leader(budget::tree& tree) {
  if (tree.hopeful && !tree.leading && !tree.backs_off() && !tree.queue.empty()) tree.queue.front()->owner_.unpark();
}

void budget_ticket::bring_hope(budget::tree& tree) {
  tree.hopeful = true;
  wake_leader(tree);
}

void budget_ticket::tell_stalled(budget::tree& tree, base::unique_lock& locked) {
  budget_ticket* oldest = tree.queue.front();
  if (oldest == nullptr) return;
  budget::tell(locked, *oldest->blocked_at_->state_, budget_event::kind::stalled, oldest->amount_);
}

void budget_ticket::take() {
  LARDER_CHECK(phase_ == phase::granted, "take of a ticket that was not granted");
  phase_ = phase::idle;
}

void budget_ticket::grant_waiting(memory_budget& budget) {
  budget::tree& tree = *budget.state_->tree;
  if (tree.waiting.load() == 0) return;  // partner: ++waiting in begin(), before its scan
  const base::lock locked(tree.guard);
  scan(tree);
}

void budget_ticket::scan(budget::tree& tree) {
  const std::uint64_t number = ++tree.scans;
  if (tree.cuts > 0) cut_limits(tree, number);
  for (budget_ticket* ticket = tree.queue.front(); ticket != nullptr;) {
    budget_ticket* next = tree.queue.after(*ticket);
    memory_budget* full = ticket->charge_path(number);
    if (full == nullptr) {
      ticket->leave_queue(tree);
      ticket->handed_over_ = true;
      tree.end_pause();
      // Under the mutex, which the owner takes before it leaves: the ticket is still there.
      ticket->owner_.unpark();
    } else {
      full->state_->blocked_scan = number;
      ticket->block_at(full);
      if (full->parent() == nullptr) break;  // the root, which is on everybody's path
    }
    ticket = next;
  }
}

// A cut begins, or ends.
void budget::node_state::set_cut(bool begins) {
  const std::uint32_t one = begins ? 1 : -1U;
  cut = begins;
  // Sequentially consistent, before the scan looks for what is free. Partner: the look after each release.
  tree->waiting.fetch_add(one);
  blocked_here.fetch_add(one);
  tree->cuts += one;
  if (begins) {
    lowering = true;
  } else {
    page_daemon::of_process().call(*tree, time_point{});  // it tells the end
  }
}

// Limits that are to come down take what is free before any ticket does.
void budget_ticket::cut_limits(budget::tree& tree, std::uint64_t scan_number) {
  for (budget::budget_node* each = tree.nodes.front(); each != nullptr; each = tree.nodes.after(*each)) {
    auto& at = static_cast<budget::node_state&>(*each);
    if (!at.cut) continue;
    if (at.lower_limit()) {
      at.set_cut(false);
    } else {
      at.blocked_scan = scan_number;
      at.call_daemon();
    }
  }
}

bool budget_ticket::can_be_met() const {
  for (const memory_budget* node = &budget_; node != nullptr; node = node->parent()) {
    if (amount_ > node->state_->open_limit()) return false;
  }
  return true;
}

void budget_ticket::refuse_hopeless(budget::tree& tree) {
  for (budget_ticket* ticket = tree.queue.front(); ticket != nullptr;) {
    budget_ticket* next = tree.queue.after(*ticket);
    if (!ticket->can_be_met()) {
      ticket->leave_queue(tree);
      ticket->turned_away_ = true;
      ticket->owner_.unpark();  // under the mutex, as in `scan`
    }
    ticket = next;
  }
}

result<void> memory_budget::set_limit(bytes wanted) {
  budget::node_state& at = *state_;
  if (wanted < at.reserve) return error_from(EINVAL);
  const base::lock locked(at.tree->guard);
  at.own_limit = std::min(wanted, unlimited);
  at.limit_changed();
  return {};
}

void budget::node_state::limit_changed() {
  const bytes wanted = std::max(std::min(own_limit, system_limit), reserve);
  wanted_limit.store(wanted.count);
  const bytes holds = look().limit;
  if (wanted > holds) raise_limit(wanted - holds);
  const bool late = base::is_mutant(base::mutant::cut_before_enter);
  const bool begins = wanted < holds && !(late && lower_limit());
  if (begins != cut) set_cut(begins);
  budget_ticket::look_again(*tree, !late);
}

// After a change of a limit.
void budget_ticket::look_again(budget::tree& tree, bool scans) {
  refuse_hopeless(tree);
  if (scans) scan(tree);
  bring_hope(tree);
}

// Charges this ticket to its whole path, or to nothing; returns the node that is full or has an older ticket waiting.
memory_budget* budget_ticket::charge_path(std::uint64_t scan_number) {
  memory_budget* node = &budget_;
  for (; node != nullptr; node = node->parent()) {
    budget::node_state& at = *node->state_;
    if (at.blocked_scan == scan_number || !at.add(amount_, at.open())) break;
  }
  if (node == nullptr) {
    for (memory_budget* charged = &budget_; charged != nullptr; charged = charged->parent()) {
      charged->state_->note_use();
    }
    return nullptr;
  }
  for (memory_budget* charged = &budget_; charged != node; charged = charged->parent()) {
    charged->state_->subtract(amount_);
  }
  return node;
}

void budget_ticket::block_at(memory_budget* node) {
  if (blocked_at_ == node) return;
  if (blocked_at_ != nullptr) --blocked_at_->state_->blocked_here;
  if (node != nullptr) ++node->state_->blocked_here;
  blocked_at_ = node;
}

void budget_ticket::leave_queue(budget::tree& tree) {
  block_at(nullptr);
  base::intrusive_list<budget_ticket>::remove(*this);
  --tree.waiting;
}

void budget_ticket::forget_all(budget::tree& tree) {
  while (budget_ticket* ticket = tree.queue.front()) ticket->leave_queue(tree);
}

// The same pass as `scan`, but nothing is charged, for nothing should fit.
void budget_ticket::check_none_fits(budget::tree& tree) {
  const std::uint64_t number = ++tree.scans;
  for (budget_ticket* ticket = tree.queue.front(); ticket != nullptr; ticket = tree.queue.after(*ticket)) {
    memory_budget* node = &ticket->budget_;
    for (; node != nullptr; node = node->parent()) {
      budget::node_state& at = *node->state_;
      if (at.cut || at.blocked_scan == number || bytes{at.occupied.load()} + ticket->amount_ > at.open()) break;
    }
    LARDER_CHECK(node != nullptr, "budget \"%s\": %llu bytes are free for a ticket that still waits",
                 ticket->budget_.name().c_str(), static_cast<unsigned long long>(ticket->amount_.count));
    node->state_->blocked_scan = number;
  }
}

// A round of reclaiming for tickets has ended; one that is hopeless gave nothing, and nobody else was at it.
void budget::tree::note_round(bool hopeless) {
  const bool was_promised = std::exchange(promised, false);
  if (!hopeless) return end_pause();
  if (!was_promised || ++broken_promises < promises_max) return;
  const time_point end = os::now() + budget::pause_after(broken_promises - promises_max);
  if (broken_promises == promises_max) stall_to_tell = true;
  if (page_daemon::of_process().call(*this, end)) pause_end = end;  // without a thread nobody would end it
}

budget::node_state* budget::tree::root() const { return static_cast<node_state*>(nodes.front()); }

void budget::tree::end_pause() {
  broken_promises = 0;
  pause_end = no_deadline;
}

budget::tree::tree() : os::fork_participant(base::lock_rank::budget) {
  prepare_accounts();
  page_daemon::of_process();  // the same: it is first called with locks held
  os::join_forks(*this);
}
budget::tree::~tree() {
  page_daemon::of_process().leave(*this);
  os::leave_forks(*this);
}

void budget::tree::in_child() {
  budget_ticket::forget_all(*this);
  // Whoever was inside a reclaimer is inside it in the parent, and so is the page daemon.
  leading = false;
  for (budget_node* node = nodes.front(); node != nullptr; node = nodes.after(*node)) {
    auto& at = static_cast<budget::node_state&>(*node);
    at.daemon_called = false;
    at.next_visit = no_deadline;
    at.being_told = 0;
  }
  pause_end = no_deadline;
  for (auto* list : {&entries, &shareholders}) {
    for (reclaimer_entry* entry = list->front(); entry != nullptr; entry = list->after(*entry)) {
      entry->busy = false;
      entry->rest_waiter = nullptr;
    }
  }
  guard.unlock_after_fork();
}

void memory_budget::wake_to_reclaim() {
  budget::tree& tree = *state_->tree;
  const base::lock locked(tree.guard);
  tree.promised = true;
  budget_ticket::bring_hope(tree);
}

}  // namespace larder

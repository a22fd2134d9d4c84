// SPDX-License-Identifier: Apache-2.0
//
// The page daemon's thread. It sleeps until a tree is due: a charge has passed the high mark of one of its budgets, a
// limit is to come down, or a pause is over. What a visit does stands in round.cc. A tree is due at one time only, the
// earliest that was asked for, and those that are due are visited in that order, a bounded piece of work each.
//
// Who waits for memory reclaims itself (ticket.cc): it needs no thread to be woken first. The daemon works ahead, so
// that few have to wait: that is what the marks are for.
#include "budget/page_daemon.h"

#include <cstdlib>

#include "budget/round.h"
#include "os/clock.h"

namespace larder::budget {
namespace {

constexpr std::chrono::seconds start_pause{1};

}  // namespace

struct page_daemon::fork_hooks final : os::fork_participant {
  explicit fork_hooks(page_daemon& of) : os::fork_participant(base::lock_rank::page_daemon), owner(of) {}
  void before_fork() override { owner.guard_.lock_for_fork(); }
  void in_parent() override { owner.guard_.unlock_after_fork(); }
  void in_child() override {
    owner.thread_.forget();
    while (daemon_entry* each = owner.due_.pop_front()) each->due = no_deadline;
    owner.guard_.unlock_after_fork();
  }
  page_daemon& owner;
};

page_daemon::page_daemon() : fork_hooks_(new fork_hooks(*this)) { os::join_forks(*fork_hooks_); }

page_daemon& page_daemon::of_process() {
  static auto* instance = [] {
    auto* made = new page_daemon;
    std::atexit([] { of_process().thread_.stop(); });
    return made;
  }();
  return *instance;
}

bool page_daemon::call(tree& in, time_point when) {
  const base::lock locked(guard_);
  if (next_start_ != time_point{} && os::coarse_now() < next_start_) return false;
  enlist(in, when);
  const bool runs = thread_.wake();
  next_start_ = runs ? time_point{} : os::coarse_now() + start_pause;
  return runs;
}

void page_daemon::leave(tree& in) {
  const base::lock locked(guard_);
  if (in.daemon_entry::linked()) base::intrusive_list<daemon_entry>::remove(in);
}

void page_daemon::enlist(tree& in, time_point when) {
  in.due = std::min(in.due, when);
  if (!in.daemon_entry::linked()) due_.push_back(in);
}

tree* page_daemon::first_due() {
  daemon_entry* first = due_.front();
  for (daemon_entry* each = first; each != nullptr; each = due_.after(*each)) {
    if (each->due < first->due) first = each;
  }
  return static_cast<tree*>(first);
}

void page_daemon::run() {
  base::unique_lock locked(guard_);
  while (!thread_.stopping()) {
    tree* first = first_due();
    if (first == nullptr || first->due > os::now()) {
      thread_.sleep_until(locked, first == nullptr ? no_deadline : first->due);
      continue;
    }
    base::intrusive_list<daemon_entry>::remove(*first);
    first->due = no_deadline;
    std::shared_ptr<tree> visited = first->weak_from_this().lock();
    if (visited == nullptr) continue;  // its last budget is going
    locked.unlock();
    const time_point again = reclaim_round(*visited, os::now());
    locked.lock();
    if (again != no_deadline) enlist(*visited, again);
    locked.unlock();
    visited.reset();  // with no lock held: it may be the last that has the tree
    locked.lock();
  }
}

}  // namespace larder::budget

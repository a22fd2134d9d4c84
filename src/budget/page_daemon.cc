// SPDX-License-Identifier: Apache-2.0
//
// The page daemon's thread. It sleeps until a tree is due: a charge has passed the high mark of one of its budgets, a
// limit is to come down, or a pause is over. What a visit does stands in round.cc. A tree is due at one time only, the
// earliest that was asked for, and those that are due are visited in that order, a bounded piece of work each.
//
// It also looks after those who follow the system: once a second at the limit of the control group, and it sleeps for
// the kernel's word that memory is short (PSI) with a parker that polls.
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
// How long a task stands still for want of memory before it is called pressure.
constexpr std::chrono::milliseconds stall{150};

// A limit that is there may change at any time; that one appears is rare.
std::chrono::seconds look_period(std::optional<bytes> limit) {
  return std::chrono::seconds(limit && *limit == unlimited ? 10 : 1);
}

void set_system_limit(tree& in, std::optional<bytes> found) {
  if (!found) return;  // what it is cannot be told now
  const bytes limit = *found;
  const base::lock locked(in.guard);
  node_state* const root = in.root();
  if (root == nullptr) return;
  const bytes share = limit < unlimited ? percent_of(limit, 90) : unlimited;
  if (std::exchange(root->system_limit, share) != share) root->limit_changed();
}

}  // namespace

os::group_files& page_daemon::system_files() {
  static os::group_files files;
  return files;
}

struct page_daemon::fork_hooks final : os::fork_participant {
  explicit fork_hooks(page_daemon& of) : os::fork_participant(base::lock_rank::page_daemon), owner(of) {}
  void before_fork() override { owner.guard_.lock_for_fork(); }
  void in_parent() override { owner.guard_.unlock_after_fork(); }
  void in_child() override {
    owner.thread_.forget();
    while (daemon_entry* each = owner.due_.pop_front()) each->due = no_deadline;
    // What the thread watches is told to one process only. The child may be moved to another group.
    if (owner.pressure_parker_ != nullptr) owner.pressure_parker_->abandon();
    owner.pressure_parker_ = nullptr;
    owner.pressure_asked_ = false;
    owner.group_.reset();
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
  const bool runs = thread_.wake() && !thread_.stopping();
  next_start_ = runs ? time_point{} : os::coarse_now() + start_pause;
  return runs;
}

void page_daemon::leave(tree& in) {
  const base::lock locked(guard_);
  if (in.daemon_entry::linked()) base::intrusive_list<daemon_entry>::remove(in);
  if (in.follower::linked()) base::intrusive_list<follower, follower>::remove(in);
}

void page_daemon::follow_system(tree& in) {
  base::unique_lock locked(guard_);
  const os::memory_group group = the_group();
  locked.unlock();
  if (group.limit_files().empty() && group.pressure_file().empty()) return;  // there is nothing to look after
  const std::optional<bytes> limit = group.limit();
  set_system_limit(in, limit);
  locked.lock();
  followers_.push_back(in);
  next_look_ = std::min(next_look_, os::now() + look_period(limit));
  thread_.wake();  // where there is no room for a thread, the next call that finds some makes it follow too
}

// Looked for once, if all could be read. The mutex is held.
os::memory_group page_daemon::the_group() {
  if (group_) return *group_;
  os::memory_group found(system_files());
  if (found.is_complete()) group_ = found;
  return found;
}

std::vector<std::shared_ptr<tree>> page_daemon::followers_held() {
  std::vector<std::shared_ptr<tree>> held;
  for (follower* each = followers_.front(); each != nullptr; each = followers_.after(*each)) {
    if (auto one = static_cast<tree*>(each)->weak_from_this().lock()) held.push_back(std::move(one));
  }
  return held;
}

void page_daemon::look_at_system(base::unique_lock& locked) {
  const os::memory_group group = the_group();
  auto held = followers_held();
  locked.unlock();
  const std::optional<bytes> limit = group.limit();
  for (const auto& each : held) set_system_limit(*each, limit);
  held.clear();
  locked.lock();
  next_look_ = followers_.empty() ? no_deadline : os::now() + look_period(limit);
}

void page_daemon::note_pressure() {
  base::unique_lock locked(guard_);
  auto held = followers_held();
  locked.unlock();
  for (const auto& each : held) {
    {
      const base::lock tree_locked(each->guard);
      each->system_presses = true;
    }
    call(*each, time_point{});
  }
}

// From now on this thread sleeps for pressure too, if the system tells of it.
void page_daemon::watch_pressure(base::unique_lock& locked) {
  pressure_asked_ = true;
  const os::memory_group group = the_group();
  locked.unlock();
  os::polling_parker* made = nullptr;
  if (auto watched = group.watch_pressure(stall)) {
    if (const auto parker = os::polling_parker::make(*std::move(watched))) made = *parker;
  }
  if (made != nullptr) os::parker::set_current(made);
  locked.lock();
  pressure_parker_ = made;
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
    if (!followers_.empty() && !pressure_asked_) watch_pressure(locked);
    if (pressure_parker_ != nullptr && pressure_parker_->take_event()) {
      locked.unlock();
      note_pressure();
      locked.lock();
    }
    if (next_look_ <= os::now()) look_at_system(locked);
    tree* first = first_due();
    if (first == nullptr || first->due > os::now()) {
      thread_.sleep_until(locked, first == nullptr ? next_look_ : std::min(first->due, next_look_));
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

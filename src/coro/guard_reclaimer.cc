// SPDX-License-Identifier: Apache-2.0
//
// Where a guard costs mappings, idle stacks hold what others lack: those of one size the guards for another, those of
// one runtime the guards for the next. Memory is no measure for that, and each cache has a budget of its own choice; so
// the caches of stacks stand in a list of their own, and who is refused a guard goes through it. A visited cache stays
// in the list, and whoever removes it waits for its visitors. That ends: nobody parks in a visit.
#include "coro/guard_reclaimer.h"

#include <cerrno>

#include "base/mutant.h"

namespace larder::coro {

guard_reclaimers& guard_reclaimers::of_process() {
  static auto* instance = new guard_reclaimers;
  return *instance;
}

guard_reclaimers::guard_reclaimers() : os::fork_participant(base::lock_rank::guard_reclaimers) {
  os::join_forks(*this);
}
guard_reclaimers::~guard_reclaimers() { os::leave_forks(*this); }

void guard_reclaimers::add(guard_reclaimer& one) {
  const base::lock locked(guard_);
  all_.push_back(one);
}

void guard_reclaimers::remove(guard_reclaimer& one) {
  base::unique_lock locked(guard_);
  while (one.visitors_ != 0 && !base::is_mutant(base::mutant::visited_removed)) {
    one.remover_ = &os::parker::current();
    locked.unlock();
    os::parker::current().park();
    locked.lock();
  }
  base::intrusive_list<guard_reclaimer>::remove(one);
}

void guard_reclaimers::ask(const std::function<bool()>& enough) {
  base::unique_lock locked(guard_);
  bool done = false;
  for (guard_reclaimer* each = all_.front(); each != nullptr && !done;) {
    ++each->visitors_;
    locked.unlock();
    while (!done && each->give_up_some()) done = enough();
    locked.lock();
    guard_reclaimer* next = all_.after(*each);
    if (--each->visitors_ == 0 && each->remover_ != nullptr) each->remover_->unpark();
    each = next;
  }
}

void guard_reclaimers::in_child() {
  // Other visitors, and who waited for them, are the parent's.
  for (guard_reclaimer* each = all_.front(); each != nullptr; each = all_.after(*each)) {
    each->visitors_ = 0;
    each->remover_ = nullptr;
  }
  guard_.unlock_after_fork();
}

}  // namespace larder::coro

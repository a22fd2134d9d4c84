// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/intrusive_list.h"
#include "base/lock_rank.h"

namespace larder::os {

// What must be whole in a forked child. Only the thread that forks goes on there, so a lock that another thread held
// would stay locked for ever, and what it guards half changed. So before a fork every participant's locks are taken, in
// the order of their ranks; then both sides have a consistent state.
class fork_participant : public base::list_link<> {
 public:
  // Takes its locks, by base::mutex::lock_for_fork. `rank` is that of the first.
  virtual void before_fork() = 0;
  // Gives them back.
  virtual void in_parent() = 0;
  // Forgets what belonged to the parent's other threads, then gives them back. No other thread runs.
  virtual void in_child() = 0;
  base::lock_rank rank() const { return rank_; }

 protected:
  explicit fork_participant(base::lock_rank rank) : rank_(rank) {}
  virtual ~fork_participant() = default;

 private:
  const base::lock_rank rank_;
};

// With no ranked lock held; while a fork is in progress, both wait for its end.
void join_forks(fork_participant& one);
void leave_forks(fork_participant& one);

}  // namespace larder::os

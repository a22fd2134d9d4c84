// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include <larder/result.h>
#include <larder/units.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "os/fork.h"
#include "os/guard.h"
#include "os/parker.h"

namespace larder::coro {

// What may hold guards that nobody uses: a cache of stacks.
class guard_reclaimer : public base::list_link<> {
 public:
  // Gives up some idle stacks, with their guards; false once there are none to give up. Called by whoever lacks a
  // guard, by several at once perhaps, with no lock held. Must not park.
  virtual bool give_up_some() = 0;

 protected:
  guard_reclaimer() = default;
  virtual ~guard_reclaimer() = default;

 private:
  friend class guard_reclaimers;
  // Guarded by the list's mutex.
  unsigned visitors_ = 0;          // threads inside give_up_some
  os::parker* remover_ = nullptr;  // waits until there are none
};

// Those of the process (theory in guard_reclaimer.cc).
class guard_reclaimers final : os::fork_participant {
 public:
  // Never destroyed: caches of stacks may outlive any order of destruction.
  static guard_reclaimers& of_process();

  guard_reclaimers();
  ~guard_reclaimers() override;
  guard_reclaimers(const guard_reclaimers&) = delete;
  guard_reclaimers& operator=(const guard_reclaimers&) = delete;

  void add(guard_reclaimer& one);
  // Returns once nobody is inside `one` and nobody ever will be again; parks the caller meanwhile.
  void remove(guard_reclaimer& one);
  // Has one after the other give up what it can, until `enough`, which is asked each time something was given up.
  void ask(const std::function<bool()>& enough);

 private:
  void before_fork() override { guard_.lock_for_fork(); }
  void in_parent() override { guard_.unlock_after_fork(); }
  void in_child() override;

  base::mutex guard_{base::lock_rank::guard_reclaimers};
  base::intrusive_list<guard_reclaimer> all_;  // guarded by guard_
};

// A guard for the lowest page of a stack. Where the system or the share refuses one, idle stacks of the whole process
// are given up for it. ENOMEM if there are none. No lock is held; does not park.
result<os::guard_kind> install_stack_guard(void* page);

// From now on for_each_stat shows what guards cost (guard_share.cc).
void show_stack_guards();

}  // namespace larder::coro

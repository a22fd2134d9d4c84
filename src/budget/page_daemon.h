// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <larder/units.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "budget/tree.h"
#include "os/memory_group.h"
#include "os/polling_parker.h"
#include "os/service_thread.h"

namespace larder::budget {

// The process's background thread that reclaims (theory in page_daemon.cc).
class page_daemon {
 public:
  // Never destroyed: budgets with static storage may outlive any order of destruction.
  static page_daemon& of_process();

  // Has the tree visited at `when`, or before. Starts the thread if there is none; false where the system has no room
  // for one. Takes a lock of rank `page_daemon` only.
  bool call(tree& in, time_point when);
  // The tree ends.
  void leave(tree& in);
  // From now on the tree's root has the system's limit too, and gives back when the system is short of memory.
  void follow_system(tree& in);

  // The system is short of memory.
  void note_pressure();

  // What the system is asked by: tests put files of their own in its place before anyone follows it.
  static os::group_files& system_files();

 private:
  page_daemon();
  void run();
  void enlist(tree& in, time_point when);
  os::memory_group the_group();
  // The mutex is held, and dropped meanwhile.
  std::vector<std::shared_ptr<tree>> followers_held();
  void look_at_system(base::unique_lock& locked);
  void watch_pressure(base::unique_lock& locked);
  tree* first_due();

  // Around fork(): the child begins without a thread, and with nothing due.
  struct fork_hooks;
  fork_hooks* const fork_hooks_;  // lives as long

  base::mutex guard_{base::lock_rank::page_daemon};
  // All guarded by guard_.
  base::intrusive_list<daemon_entry> due_;
  base::intrusive_list<follower, follower> followers_;
  std::optional<os::memory_group> group_;          // once anyone follows it
  os::polling_parker* pressure_parker_ = nullptr;  // the thread's, if the system tells of pressure
  bool pressure_asked_ = false;
  time_point next_look_ = no_deadline;  // at the system
  time_point next_start_{};             // after a failed one
  os::service_thread thread_{"larder-daemon", guard_, [this] { run(); }};
};

}  // namespace larder::budget

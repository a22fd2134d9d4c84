// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/units.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "budget/tree.h"
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

 private:
  page_daemon();
  void run();
  void enlist(tree& in, time_point when);
  tree* first_due();

  // Around fork(): the child begins without a thread, and with nothing due.
  struct fork_hooks;
  fork_hooks* const fork_hooks_;  // lives as long

  base::mutex guard_{base::lock_rank::page_daemon};
  // All guarded by guard_.
  base::intrusive_list<daemon_entry> due_;
  time_point next_start_{};  // after a failed one
  os::service_thread thread_{"larder-daemon", guard_, [this] { run(); }};
};

}  // namespace larder::budget

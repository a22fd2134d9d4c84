// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/keeper.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "os/parker.h"
#include "os/service_thread.h"

namespace larder::cache {

// What the keeper looks after: an object cache.
class kept : public base::list_link<> {
 public:
  // One round, on the keeper's thread with no lock held: moves or destroys about `objects_max` objects at most. False
  // once nothing is left to do until `wake` is called again.
  virtual bool keep(std::size_t objects_max) = 0;

 protected:
  kept() = default;
  virtual ~kept() = default;

 private:
  friend class keeper;
  // Guarded by the keeper's mutex.
  bool awake_ = false;
  bool busy_ = false;              // the keeper is inside keep()
  std::uint64_t round_ = 0;        // the last that came here
  os::parker* remover_ = nullptr;  // waits for !busy_
};

// The process's background thread, which gives back what nobody needs any more (theory in keeper.cc).
class keeper {
 public:
  // Never destroyed: caches with static storage may outlive any order of destruction.
  static keeper& of_process();

  void add(kept& one);
  // Returns once the keeper is not inside `one` and never will be again. Not from within its own keep().
  void remove(kept& one);
  // Visits `one` every period from the next on, until it is at rest. Starts the thread if there is none; where the
  // system has no room for a thread it returns false, and a later call tries again. Takes a lock of rank `keeper` only.
  bool wake(kept& one);

  result<void> configure(const keeper_options& chosen);
  keeper_options configuration();

  // One round now, on the calling thread: for tests.
  void round();

 private:
  keeper();
  void run();
  bool anything_awake() const;

  // Around fork(): the child begins without a thread and with everything asleep.
  struct fork_hooks;
  fork_hooks* const fork_hooks_;  // lives as long

  base::mutex guard_{base::lock_rank::keeper};
  // All guarded by guard_.
  base::intrusive_list<kept> all_;
  keeper_options options_;
  os::service_thread thread_{"larder-keeper", guard_, [this] { run(); }};
  std::uint64_t rounds_ = 0;
};

}  // namespace larder::cache

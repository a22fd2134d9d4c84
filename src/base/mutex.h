// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "base/lock_rank.h"
#include "base/schedule.h"

namespace larder::base {

#ifdef LARDER_SCHEDULED

// Blocks the logical thread, in sight of the scheduler.
class system_mutex {
 public:
  void lock() {
    schedule::point(&locked_, schedule::access::lock);
    locked_ = true;
  }
  void unlock() {
    schedule::point(&locked_, schedule::access::unlock);
    locked_ = false;
  }

 private:
  bool locked_ = false;
};

#else
using system_mutex = std::mutex;
#endif

// Guards the library's own short sections: nobody parks, calls the user or waits for I/O under it.
class mutex {
 public:
  explicit mutex(lock_rank rank) : rank_(rank) {}
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  void lock() {
    note_locked(rank_);
    mutex_.lock();
  }
  void unlock() {
    note_unlocked(rank_);  // first: once unlocked, the mutex may be gone
    mutex_.unlock();
  }
  // Around fork(), which takes many of one rank (os/fork.h).
  void lock_for_fork() { mutex_.lock(); }
  void unlock_after_fork() { mutex_.unlock(); }

 private:
  system_mutex mutex_;
  [[maybe_unused]] const lock_rank rank_;
};

using lock = std::lock_guard<mutex>;
using unique_lock = std::unique_lock<mutex>;

}  // namespace larder::base

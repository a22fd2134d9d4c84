// SPDX-License-Identifier: Apache-2.0
//
// Which parker is whose. Those of threads that ended are handed to new threads and never freed (see parker.h).
#include "os/parker.h"

#include <mutex>

#include "os/thread_parker.h"

namespace larder::os {
namespace {

// Parkers of threads that ended.
struct parker_pool {
  std::mutex guard;
  thread_parker* unused = nullptr;  // guarded by `guard`
};

parker_pool& the_pool() {
  static auto* instance = new parker_pool;
  return *instance;
}

struct thread_slot {
  thread_parker* own = nullptr;
  parker* replaced = nullptr;

  ~thread_slot() {
    if (own == nullptr) return;
    parker_pool& pool = the_pool();
    const std::lock_guard<std::mutex> locked(pool.guard);
    own->next_unused = pool.unused;
    pool.unused = own;
    own = nullptr;
  }
};

thread_local thread_slot slot;

thread_parker* take_parker() {
  parker_pool& pool = the_pool();
  {
    const std::lock_guard<std::mutex> locked(pool.guard);
    if (pool.unused != nullptr) {
      thread_parker* reused = pool.unused;
      pool.unused = reused->next_unused;
      return reused;
    }
  }
  return new thread_parker;
}

}  // namespace

[[gnu::noinline]] parker& parker::current() {
  thread_slot& mine = slot;
  if (mine.replaced != nullptr) return *mine.replaced;
  if (mine.own == nullptr) mine.own = take_parker();
  return *mine.own;
}

void parker::lock_pool_for_fork() { the_pool().guard.lock(); }
void parker::unlock_pool_after_fork() { the_pool().guard.unlock(); }

[[gnu::noinline]] void parker::set_current(parker* mine) { slot.replaced = mine; }

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
//
// A thread's parker is one futex word: 0 empty, 1 token, 2 asleep. unpark stores the token and wakes only a sleeper;
// park takes it or sleeps. The words of threads that ended are handed to new threads and never unmapped (see parker.h).
#include "os/parker.h"

#include "base/atomic.h"
#include "base/lock_rank.h"
#include "base/mutex.h"
#include "os/futex.h"

namespace larder::os {
namespace {

class thread_parker final : public parker {
 public:
  void park() override { park_until(no_deadline); }

  bool park_until(time_point deadline) override {
    base::check_no_lock_held("parking");
    for (;;) {
      std::uint32_t seen = token;
      // Acquire pairs with unpark's exchange: what was written before it is seen after this.
      if (word_.compare_exchange_strong(seen, empty, base::memory_order_acquire)) return true;
      seen = empty;
      if (!word_.compare_exchange_strong(seen, asleep)) continue;
      const bool in_time = futex_wait(word_, asleep, deadline);
      seen = asleep;
      if (word_.compare_exchange_strong(seen, empty)) {
        if (!in_time) return false;
        continue;  // woken for no reason
      }
    }
  }

  void unpark() override {
    if (word_.exchange(token) == asleep) futex_wake_one(word_);
  }

  thread_parker* next_unused = nullptr;  // guarded by the pool's mutex

 private:
  static constexpr std::uint32_t empty = 0;
  static constexpr std::uint32_t token = 1;
  static constexpr std::uint32_t asleep = 2;
  base::atomic<std::uint32_t> word_{empty};
};

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

[[gnu::noinline]] void parker::set_current(parker* mine) { slot.replaced = mine; }

}  // namespace larder::os

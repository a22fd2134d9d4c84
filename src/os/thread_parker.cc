// SPDX-License-Identifier: Apache-2.0
#include "os/thread_parker.h"

#include "base/lock_rank.h"
#include "base/mutant.h"
#include "os/futex.h"

namespace larder::os {

using base::is_mutant;
using base::mutant;

bool thread_parker::park_until(time_point deadline) {
  base::check_no_lock_held("parking");
  for (;;) {
    std::uint32_t seen = token;
    // Acquire pairs with unpark's exchange: what was written before it is seen after this.
    if (word_.compare_exchange_strong(seen, empty, base::memory_order_acquire)) return true;
    seen = empty;
    if (is_mutant(mutant::sleep_without_look)) {
      word_.store(asleep);
    } else if (!word_.compare_exchange_strong(seen, asleep)) {
      continue;
    }
    const bool in_time = futex_wait(word_, asleep, deadline);
    seen = asleep;
    if (!in_time && is_mutant(mutant::asleep_left_behind)) return false;
    if (word_.compare_exchange_strong(seen, empty)) {
      if (!in_time) return false;
      continue;  // woken for no reason
    }
  }
}

void thread_parker::unpark() {
  if (is_mutant(mutant::token_without_look)) return word_.store(token);
  if (word_.exchange(token) == asleep) futex_wake_one(word_);
}

}  // namespace larder::os

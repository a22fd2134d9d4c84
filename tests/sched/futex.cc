// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/futex.cc: a wait blocks the logical thread. Its deadline may pass at any moment, and it may
// end for no reason, as the scheduler chooses.
#include "os/futex.h"

#include "base/schedule.h"
#include "tests/sched/engine.h"

namespace larder::os {

bool futex_wait(base::atomic<std::uint32_t>& word, std::uint32_t expected, time_point deadline) {
  base::schedule::point(&word, base::schedule::access::sleep);
  if (word.unscheduled() != expected) return true;
  return sched::engine::running()->sleep(&word, deadline);
}

void futex_wake_one(base::atomic<std::uint32_t>& word) {
  base::schedule::point(&word, base::schedule::access::wake);
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->wake_one(&word);
}

}  // namespace larder::os

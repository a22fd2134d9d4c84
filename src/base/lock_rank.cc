// SPDX-License-Identifier: Apache-2.0
#include "base/lock_rank.h"

#ifdef LARDER_DEBUG_CHECKS

#include "base/check.h"
#include "base/schedule.h"

namespace larder::base {
namespace {

// How many locks of each rank this thread holds. Locks of one rank are never nested, so each is 0 or 1.
int* locks_held() {
#ifdef LARDER_SCHEDULED
  return schedule::locks_held();
#else
  thread_local int held[lock_ranks];
  return held;
#endif
}

}  // namespace

void note_locked(lock_rank rank) {
  int* held = locks_held();
  const int mine = static_cast<int>(rank);
  for (int other = mine; other < lock_ranks; ++other) {
    LARDER_CHECK(held[other] == 0, "lock order: rank %d taken while rank %d is held", mine, other);
  }
  ++held[mine];
}

void note_unlocked(lock_rank rank) {
  int* held = locks_held();
  LARDER_CHECK(held[static_cast<int>(rank)] == 1, "lock of rank %d released by a thread that does not hold it",
               static_cast<int>(rank));
  --held[static_cast<int>(rank)];
}

void check_no_lock_held(const char* doing) {
  const int* held = locks_held();
  for (int rank = 0; rank < lock_ranks; ++rank) {
    LARDER_CHECK(held[rank] == 0, "%s while a lock of rank %d is held", doing, rank);
  }
}

}  // namespace larder::base

#endif

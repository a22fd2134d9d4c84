// SPDX-License-Identifier: Apache-2.0
#include "base/lock_rank.h"

#ifdef LARDER_DEBUG_CHECKS

#include "base/check.h"

namespace larder::base {
namespace {

constexpr int ranks = static_cast<int>(lock_rank::budget) + 1;

// How many locks of each rank this thread holds. Locks of one rank are never nested, so each is 0 or 1.
thread_local int held[ranks];

}  // namespace

void note_locked(lock_rank rank) {
  const int mine = static_cast<int>(rank);
  for (int other = mine; other < ranks; ++other) {
    LARDER_CHECK(held[other] == 0, "lock order: rank %d taken while rank %d is held", mine, other);
  }
  ++held[mine];
}

void note_unlocked(lock_rank rank) {
  LARDER_CHECK(held[static_cast<int>(rank)] == 1, "lock of rank %d released by a thread that does not hold it",
               static_cast<int>(rank));
  --held[static_cast<int>(rank)];
}

void check_no_lock_held(const char* doing) {
  for (int rank = 0; rank < ranks; ++rank) {
    LARDER_CHECK(held[rank] == 0, "%s while a lock of rank %d is held", doing, rank);
  }
}

}  // namespace larder::base

#endif

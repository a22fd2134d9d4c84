// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>

#include "budget/tree.h"

namespace larder::budget {

struct reclaim_step {
  reclaimer_entry* entry = nullptr;  // null: nobody is left to ask
  bytes wanted;
  bool met_busy = false;  // somebody else is inside one that might have been asked
};

// Who is asked next, and for how much, in a round of reclaiming (tree::begin_round) for `node`, which is not looked
// into, in the stages up to `last`. The tree's mutex is held.
reclaim_step next_step(const tree& in, const memory_budget* node, bytes wanted, reclaim_stage last,
                       std::uint64_t round);

// What it holds beyond its due, for its weight. To choose by, so roundly.
double by_weight(const reclaimer::share& of);

// Less is not worth a step: two caches that are equal would give a page each in turn.
inline constexpr bytes fair_step = 16_KiB;

}  // namespace larder::budget

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

// Who beside `mine`, of its stage and within `node`, holds most by weight, and how much of that would make their shares
// even; nobody if that is less than a step, or if somebody is inside it. The tree's mutex is held.
reclaim_step richest_beside(const tree& in, const memory_budget* node, const reclaimer& mine);

}  // namespace larder::budget

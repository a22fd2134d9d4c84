// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>

namespace larder::budget {

// One that grows at others' cost, and gives for others that do. `source.share_held()` says what it holds, and
// `source.reclaim(wanted)` gives at most so much of what it needs least: at once, at little cost, waiting for nobody.
// Beside what it is as a reclaimer, and under another address.
void add_shareholder(memory_budget& node, reclaimer& source);
// Returns once it is not being asked and never will be again.
void remove_shareholder(memory_budget& node, const reclaimer& source);

// For the shareholder `mine`, which finds no room for `least` below the high marks on its way: has those that hold more
// by weight give, the richest first, up to `wanted`, as far as that makes the shares more even. They are asked for
// multiples of `grain`, of which `mine` can make use. Returns what was given; it may be another's by then. Nothing
// inside a reclaimer, nor while somebody waits for memory.
struct growth_wish {
  bytes least;
  bytes grain;
  bytes wanted;
};
bytes even_out(const memory_budget& node, const reclaimer& mine, growth_wish wish);

}  // namespace larder::budget

// SPDX-License-Identifier: Apache-2.0
//
// Fair shares. Of the reclaimers of one stage the one that has most beyond its due, by weight, gives first; so several
// caches on one budget come down to sizes in the proportion of their weights, wherever they began:
//
//   first    argmax over the stage of  surplus(i) / weight(i)
//   step     what brings it down to the next one's share, but no less than fair_step, no more than reclaim_chunk
//
// So when the need is met, those that gave have shares within a step of each other, and no smaller share than one that
// did not give. Who gave less than it was asked for has no more in this round, whatever its surplus says.
//
// Rounds are numbered, and an entry keeps the newest round in which it ran dry. It is dry for older rounds too: that
// was found out after they began. So of two who reclaim at once, neither makes the other ask the same one for ever.
#include "budget/fair_share.h"

#include <algorithm>

#include "budget/reclaim.h"

namespace larder::budget {
double by_weight(const reclaimer::share& of) {
  return static_cast<double>(of.surplus.count) / std::max<std::uint32_t>(of.weight, 1);
}

reclaim_step next_step(const tree& in, const memory_budget* node, bytes wanted, reclaim_stage last,
                       std::uint64_t round) {
  reclaimer_entry* first = nullptr;
  reclaimer::share largest;
  double second = 0;
  bool met_busy = false;
  for (reclaimer_entry* entry = in.entries.front(); entry != nullptr; entry = in.entries.after(*entry)) {
    if (entry->stage > last || (first != nullptr && entry->stage != first->stage)) break;
    if (entry->dry_in_round >= round || !is_within(entry->node, node)) continue;
    if (entry->busy) {
      met_busy = true;
      continue;
    }
    const reclaimer::share its = entry->source->share_held();
    if (first == nullptr || by_weight(its) > by_weight(largest)) {
      if (first != nullptr) second = by_weight(largest);
      first = entry;
      largest = its;
    } else {
      second = std::max(second, by_weight(its));
    }
  }
  bytes step = reclaim_chunk;
  if (largest.surplus < unlimited) {
    const double above = (by_weight(largest) - second) * largest.weight;
    step = std::clamp(bytes{static_cast<std::uint64_t>(above)}, fair_step, reclaim_chunk);
  }
  return {.entry = first, .wanted = std::min(wanted, step), .met_busy = met_busy};
}

}  // namespace larder::budget

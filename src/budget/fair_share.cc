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
// So come down those that are asked. One that would grow, where the rest of the memory is kept free, has another give
// until their shares are even (even_out): else who came first would keep what it once took, idle or not. Then it is for
// each to choose which of its pages leave for its own new ones.
//
// Rounds are numbered, and an entry keeps the newest round in which it ran dry. It is dry for older rounds too: that
// was found out after they began. So of two who reclaim at once, neither makes the other ask the same one for ever.
#include "budget/fair_share.h"

#include <algorithm>

#include "budget/reclaim.h"

namespace larder::budget {
namespace {

// With less, two caches that are equal would give a page each in turn.
constexpr bytes fair_step = 16_KiB;

// To choose by, so roundly.
double by_weight(const reclaimer::share& of) {
  return static_cast<double>(of.surplus.count) / std::max<std::uint32_t>(of.weight, 1);
}

}  // namespace

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

reclaim_step richest_beside(const tree& in, const memory_budget* node, const reclaimer& mine) {
  reclaimer_entry* own = in.entries.front();
  while (own != nullptr && own->source != &mine) own = in.entries.after(*own);
  if (own == nullptr) return {};
  reclaimer_entry* richest = nullptr;
  reclaimer::share largest;
  for (reclaimer_entry* entry = in.entries.front(); entry != nullptr; entry = in.entries.after(*entry)) {
    if (entry == own || entry->stage != own->stage || entry->busy || !is_within(entry->node, node)) continue;
    const reclaimer::share its = entry->source->share_held();
    if (its.surplus == unlimited) continue;  // it does not say
    if (richest != nullptr && by_weight(its) <= by_weight(largest)) continue;
    richest = entry;
    largest = its;
  }
  if (richest == nullptr) return {};
  const reclaimer::share held = mine.share_held();
  // What goes from one to the other counts for both: step / weight less there, step / weight more here.
  const double there = std::max<std::uint32_t>(largest.weight, 1);
  const double here = std::max<std::uint32_t>(held.weight, 1);
  const double step = (by_weight(largest) - by_weight(held)) * there * here / (there + here);
  if (step < static_cast<double>(fair_step.count)) return {};
  return {.entry = richest, .wanted = bytes{static_cast<std::uint64_t>(step)}};
}

}  // namespace larder::budget

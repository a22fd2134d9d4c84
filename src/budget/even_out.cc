// SPDX-License-Identifier: Apache-2.0
//
// Who comes first takes what is there, and keeps it, for those that come later grow into free room only. So a cache
// that misses, and finds none, may have others give: until its share, by weight, is as large as theirs (fair_share.cc).
//
// What goes from one to the other counts for both: a step makes giver and taker even if
//
//   step = (share(giver) − share(taker)) × w(giver) × w(taker) / (w(giver) + w(taker)),   share = surplus / weight
//
// Neither asks for more, nor for what it could make no use of, nor gives more than it was asked for, though its pages
// are large: so no step turns the order of the two round, and they do not give a page each in turn. One that has
// nothing to give (its pages are dirty, pinned or in use) is passed over, and the next richest asked.
//
// Those who give for this are kept in a list beside that of the reclaimers: who waits for memory, and the page daemon,
// do not meet one that is busy with it.
#include "budget/even_out.h"

#include <algorithm>

#include "budget/reclaim.h"

namespace larder::budget {
namespace {

// In the tree's mutex. Who of those within `node` holds most by weight, and how much makes it and `mine` even: nobody,
// if that is less than a step, or if somebody is inside it, for then it may soon hold less.
reclaim_step richest_beside(const tree& in, const memory_budget* node, const reclaimer& mine, bytes given,
                            std::uint64_t round) {
  reclaimer_entry* richest = nullptr;
  reclaimer::share largest;
  reclaimer::share held = mine.share_held();
  held.surplus += given;
  for (reclaimer_entry* entry = in.shareholders.front(); entry != nullptr; entry = in.shareholders.after(*entry)) {
    if (entry->source == &mine || entry->dry_in_round >= round || !is_within(entry->node, node)) continue;
    const reclaimer::share its = entry->source->share_held();
    if (richest != nullptr && by_weight(its) <= by_weight(largest)) continue;
    richest = entry;
    largest = its;
  }
  if (richest == nullptr || richest->busy || richest->rest_waiter != nullptr) return {};
  const double theirs = std::max<std::uint32_t>(largest.weight, 1);
  const double its_own = std::max<std::uint32_t>(held.weight, 1);
  const double step = (by_weight(largest) - by_weight(held)) * theirs * its_own / (theirs + its_own);
  if (step < static_cast<double>(fair_step.count)) return {};
  return {.entry = richest, .wanted = std::min(reclaim_chunk, bytes{static_cast<std::uint64_t>(step)})};
}

}  // namespace

void add_shareholder(memory_budget& node, reclaimer& source) {
  auto* entry = new reclaimer_entry;
  entry->source = &source;
  entry->node = &node;
  tree& in = *state_of(node).tree;
  const base::lock locked(in.guard);
  in.shareholders.push_back(*entry);
}

void remove_shareholder(memory_budget& node, const reclaimer& source) {
  remove_entry(node, state_of(node).tree->shareholders, source, "remove_shareholder");
}

bytes even_out(const memory_budget& node, const reclaimer& mine, growth_wish wish) {
  if (os::parker::current().reclaiming) return {};
  tree& in = *state_of(node).tree;
  base::unique_lock locked(in.guard);
  const memory_budget* full = nullptr;
  for (const memory_budget* each = &node; each != nullptr; each = each->parent()) {
    const node_state& at = state_of(*each);
    if (at.blocked_here.load() != 0) return {};  // what becomes free is theirs who wait
    const bytes room = at.room_to_mark();
    if (room < wish.least && at.beyond_mark() >= wish.wanted) return {};  // nothing would be left of it
    if (full != nullptr) continue;
    if (room < wish.least) {
      full = each;
    } else {
      wish.wanted = std::min(wish.wanted, room);
    }
  }
  if (full == nullptr) return {};
  bytes given;
  const std::uint64_t round = in.begin_round();
  while (given < wish.wanted) {
    const auto [richest, most, met_busy] = richest_beside(in, full, mine, given, round);
    const bytes step = wish.grain * (std::min(most, wish.wanted - given) / wish.grain);
    if (richest == nullptr || step.count == 0) break;
    const bytes got = ask(locked, *richest, step);
    given += got;
    if (got == bytes{}) richest->dry_in_round = std::max(richest->dry_in_round, round);
  }
  return given;
}

}  // namespace larder::budget

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include <larder/memory_budget.h>

#include "base/mutex.h"
#include "budget/fair_share.h"
#include "budget/tree.h"
#include "os/parker.h"

namespace larder::budget {

// Whether what is charged to `node` is charged to `ancestor` too.
bool is_within(const memory_budget* node, const memory_budget* ancestor);

// Charges, if need be after asking the reclaimers once; waits for nobody. Not inside a reclaimer.
bool charge_or_reclaim(memory_budget& budget, bytes amount);

// Asks one for `step`, which keeps the entry where it is and others out. The tree's mutex is held on entry and exit,
// but not while the reclaimer runs.
bytes ask(base::unique_lock& locked, reclaimer_entry& entry, bytes step);

struct reclaimed {
  bytes given;
  bool passed_over = false;  // somebody else was inside a reclaimer, which may give something yet
};

// Asks the reclaimers at and below `node` in the order of their stages, up to `last`, a bounded step at a time, until
// they gave `wanted`. Before each step `go_on()` says, with the tree's mutex held, whether there is still need and time
// for it. The mutex is held on entry and exit, but not while a reclaimer runs; so `node`, which is not looked into, may
// be gone meanwhile.
template <typename GoOn>
reclaimed reclaim_within(tree& in, base::unique_lock& locked, const memory_budget* node, bytes wanted,
                         reclaim_stage last, GoOn&& go_on) {
  reclaimed sum;
  const std::uint64_t round = in.begin_round();
  while (sum.given < wanted && go_on()) {
    const auto [entry, step, met_busy] = next_step(in, node, wanted - sum.given, last, round);
    sum.passed_over = sum.passed_over || met_busy;
    if (entry == nullptr) break;
    const bytes given = ask(locked, *entry, step);
    sum.given += given;
    if (given < step || entry->rest_waiter != nullptr) entry->dry_in_round = std::max(entry->dry_in_round, round);
  }
  return sum;
}

// The entry of `source`, once nobody is inside it; null if it has none. The list's tree's mutex is held, but not while
// it waits.
reclaimer_entry* entry_at_rest(const base::intrusive_list<reclaimer_entry>& list, base::unique_lock& locked,
                               const reclaimer& source);
// Takes the entry of `source` out of a list of `node`'s tree, once nobody is inside it; `call` is whose misuse it is if
// there is none.
void remove_entry(memory_budget& node, const base::intrusive_list<reclaimer_entry>& list, const reclaimer& source,
                  const char* call);

// While it lives, `source` is not asked: waits for the end of a call in progress, and others pass it over then. For who
// has to find it at rest, though the page daemon, waiters of the same tree and other shareholders come unbidden. One at
// a time for each, and not while it is removed.
class reclaimer_pause {
 public:
  reclaimer_pause(const memory_budget& budget, const reclaimer& source);
  ~reclaimer_pause();
  reclaimer_pause(const reclaimer_pause&) = delete;
  reclaimer_pause& operator=(const reclaimer_pause&) = delete;

 private:
  tree& in_;
  reclaimer_entry* entry_;
};

}  // namespace larder::budget

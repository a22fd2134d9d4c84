// SPDX-License-Identifier: Apache-2.0
//
// Those who can give memory back. A tree keeps them in the order of their stages; an entry is marked busy while
// somebody is inside its reclaimer, so that others pass it over and whoever removes it waits.
#include "budget/reclaim.h"

#include "base/check.h"
#include "os/waiting.h"

namespace larder {

bool budget::is_within(const memory_budget* node, const memory_budget* ancestor) {
  for (; node != nullptr; node = node->parent()) {
    if (node == ancestor) return true;
  }
  return false;
}

bool budget::charge_or_reclaim(memory_budget& budget, bytes amount) {
  if (budget.try_charge(amount)) return true;
  budget.reclaim(amount);
  return budget.try_charge(amount);
}

void memory_budget::add_reclaimer(reclaimer& source, reclaim_stage stage) {
  auto* entry = new budget::reclaimer_entry;
  entry->source = &source;
  entry->node = this;
  entry->stage = stage;
  budget::tree& tree = *state_->tree;
  const base::lock locked(tree.guard);
  // Behind the last of its stage: find it from the back, push, and rotate what comes after it.
  base::intrusive_list<budget::reclaimer_entry> later;
  while (tree.entries.back() != nullptr && tree.entries.back()->stage > stage) {
    budget::reclaimer_entry* last = tree.entries.back();
    base::intrusive_list<budget::reclaimer_entry>::remove(*last);
    later.push_front(*last);
  }
  tree.entries.push_back(*entry);
  while (budget::reclaimer_entry* next = later.pop_front()) tree.entries.push_back(*next);
  budget_ticket::bring_hope(tree);
}

void memory_budget::remove_reclaimer(reclaimer& source) {
  budget::tree& tree = *state_->tree;
  base::unique_lock locked(tree.guard);
  budget::reclaimer_entry* entry = tree.entries.front();
  while (entry != nullptr && entry->source != &source) entry = tree.entries.after(*entry);
  LARDER_CHECK(entry != nullptr, "budget \"%s\": remove_reclaimer of one that is not registered", name().c_str());
  os::parker& self = os::parker::current();
  time_point since{};
  while (entry->busy) {
    entry->remover = &self;
    locked.unlock();
    {
      const os::waiting noted(self, {.kind = "end of a reclaimer", .object = &source}, since);
      self.park();
    }
    locked.lock();
  }
  base::intrusive_list<budget::reclaimer_entry>::remove(*entry);
  locked.unlock();
  delete entry;
}

bytes memory_budget::reclaim(bytes wanted) {
  LARDER_CHECK(!os::parker::current().reclaiming, "budget \"%s\": reclaim inside a reclaimer", name().c_str());
  budget::tree& tree = *state_->tree;
  base::unique_lock locked(tree.guard);
  const bytes given =
      budget::reclaim_within(tree, locked, this, wanted, reclaim_stage::last_resort, [] { return true; }).given;
  if (given.count > 0) budget_ticket::bring_hope(tree);
  return given;
}

bytes reclaim(bytes wanted) { return memory_budget::process().reclaim(wanted); }

}  // namespace larder

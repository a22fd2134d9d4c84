// SPDX-License-Identifier: Apache-2.0
//
// Those who can give memory back. A tree keeps them in the order of their stages; an entry is marked busy while
// somebody is inside its reclaimer, so that others pass it over and whoever removes it waits.
#include "budget/reclaim.h"

#include "base/check.h"
#include "base/mutant.h"
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

bytes budget::ask(base::unique_lock& locked, reclaimer_entry& entry, bytes step) {
  os::parker& self = os::parker::current();
  entry.busy = true;
  locked.unlock();
  self.reclaiming = true;
  const bytes given = entry.source->reclaim(step);
  self.reclaiming = false;
  locked.lock();
  entry.busy = false;
  if (entry.rest_waiter != nullptr) entry.rest_waiter->unpark();
  return given;
}

budget::reclaimer_entry* budget::entry_at_rest(const base::intrusive_list<reclaimer_entry>& list,
                                               base::unique_lock& locked, const reclaimer& source) {
  reclaimer_entry* entry = list.front();
  while (entry != nullptr && entry->source != &source) entry = list.after(*entry);
  os::parker& self = os::parker::current();
  time_point since{};
  while (entry != nullptr && entry->busy && !base::is_mutant(base::mutant::rest_not_awaited)) {
    LARDER_CHECK(entry->rest_waiter == nullptr || entry->rest_waiter == &self,
                 "budget \"%s\": two wait for the rest of a reclaimer", entry->node->name().c_str());
    entry->rest_waiter = &self;
    locked.unlock();
    {
      const os::waiting noted(self, {.kind = "end of a reclaimer", .object = &source}, since);
      self.park();
    }
    locked.lock();
  }
  return entry;
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
  budget::remove_entry(*this, state_->tree->entries, source, "remove_reclaimer");
}

void budget::remove_entry(memory_budget& node, const base::intrusive_list<reclaimer_entry>& list,
                          const reclaimer& source, const char* call) {
  base::unique_lock locked(state_of(node).tree->guard);
  reclaimer_entry* entry = entry_at_rest(list, locked, source);
  LARDER_CHECK(entry != nullptr, "budget \"%s\": %s of one that is not registered", node.name().c_str(), call);
  base::intrusive_list<reclaimer_entry>::remove(*entry);
  locked.unlock();
  delete entry;
}

budget::reclaimer_pause::reclaimer_pause(const memory_budget& budget, const reclaimer& source)
    : in_(*state_of(budget).tree) {
  base::unique_lock locked(in_.guard);
  entry_ = entry_at_rest(in_.entries, locked, source);
  if (entry_ == nullptr) entry_ = entry_at_rest(in_.shareholders, locked, source);
  LARDER_CHECK(entry_ != nullptr, "budget \"%s\": pause of a reclaimer that is not registered", budget.name().c_str());
  entry_->rest_waiter = nullptr;
  entry_->busy = true;
}

budget::reclaimer_pause::~reclaimer_pause() {
  const base::lock locked(in_.guard);
  entry_->busy = false;
  if (entry_->rest_waiter != nullptr) entry_->rest_waiter->unpark();
  // Who came to wait for memory meanwhile may have passed it over.
  if (!base::is_mutant(base::mutant::rest_brings_no_hope)) budget_ticket::bring_hope(in_);
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

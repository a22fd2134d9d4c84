// SPDX-License-Identifier: Apache-2.0
//
// Events. Who is called is counted at its budget, and so is the budget where it happened, whose end waits until it is
// told: so neither the function nor the budget that it hears of goes while it is called.
#include "budget/event.h"

#include <utility>

#include "os/waiting.h"

namespace larder {
namespace {

void end_telling(budget::node_state& at) {
  // None in a child that was forked from within the call.
  if (at.being_told > 0 && --at.being_told == 0 && at.telling_ends != nullptr) at.telling_ends->unpark();
}

}  // namespace

void budget::tell(base::unique_lock& locked, budget::node_state& at, budget_event::kind what, bytes wanted,
                  const memory_account* account) {
  os::parker& self = os::parker::current();
  ++at.being_told;
  for (memory_budget* node = &at.self; node != nullptr; node = node->parent()) {
    budget::node_state& listener = budget::state_of(*node);
    const auto told = listener.told;
    if (told == nullptr) continue;
    ++listener.being_told;
    const auto [used, limit] = at.look();
    const budget_event event{
        .what = what, .budget = at.self, .used = used, .limit = limit, .wanted = wanted, .account = account};
    locked.unlock();
    const bool reclaims = std::exchange(self.reclaiming, true);  // to wait for memory here would be to wait for itself
    (*told)(event);
    self.reclaiming = reclaims;
    locked.lock();
    end_telling(listener);
  }
  end_telling(at);
}

void budget::tell_out_of_memory(memory_budget& at, bytes amount) {
  budget::node_state& failed = budget::state_of(at);
  base::unique_lock locked(failed.tree->guard);
  bool heard = false;
  for (const memory_budget* node = &at; node != nullptr; node = node->parent()) {
    heard = heard || budget::state_of(*node).told != nullptr;
  }
  if (!heard) return;
  locked.unlock();
  const memory_account account = at.account();
  locked.lock();
  tell(locked, failed, budget_event::kind::out_of_memory, amount, &account);
}

void memory_budget::on_event(std::function<void(const budget_event&)> told) {
  std::shared_ptr<const std::function<void(const budget_event&)>> next;
  if (told) next = std::make_shared<const std::function<void(const budget_event&)>>(std::move(told));
  os::parker& self = os::parker::current();
  base::unique_lock locked(state_->tree->guard);
  state_->told.swap(next);
  time_point since{};
  os::parker* before = nullptr;  // waits for the same, and is woken by us
  while (state_->being_told > 0) {
    if (state_->telling_ends != &self) before = std::exchange(state_->telling_ends, &self);
    locked.unlock();
    {
      const os::waiting noted(self, {.kind = "end of an event", .object = this}, since);
      self.park();
    }
    locked.lock();
  }
  if (state_->telling_ends == &self) state_->telling_ends = nullptr;
  if (before != nullptr) before->unpark();
}

}  // namespace larder

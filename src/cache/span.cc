// SPDX-License-Identifier: Apache-2.0
#include "cache/span.h"

#include <new>

#include "os/memory.h"

namespace larder::cache {

bool charge_now(memory_budget& budget, bytes amount) {
  if (budget.try_charge(amount)) return true;
  for (memory_budget* node = &budget; node != nullptr; node = node->parent()) {
    const bytes open = node->wanted_limit() - node->reserve();
    if (amount > open) return false;
    const bytes wanted = node->used() + amount;
    if (wanted > open) node->reclaim(wanted - open);
  }
  return budget.try_charge(amount);
}

budget_charge charge_or_throw(memory_budget& budget, bytes amount) {
  if (!charge_now(budget, amount)) throw std::bad_alloc();
  return {budget, amount};
}

result<void*> map_span(memory_budget& budget, const span_shape& shape) {
  if (!budget.try_charge(shape.charge)) return error_from(ENOMEM);
  const result<void*> mapped = os::map(shape.length, shape.alignment);
  if (!mapped) budget.release(shape.charge);
  return mapped;
}

void unmap_span(memory_budget& budget, const span_shape& shape, void* address) {
  os::unmap(address, shape.length);
  budget.release(shape.charge);
}

}  // namespace larder::cache

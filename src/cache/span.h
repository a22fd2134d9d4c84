// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder::cache {

// A span is a run of pages from the system: what a cache takes and gives back at a time, and the unit of charging. All
// spans of one use have one shape.
struct span_shape {
  bytes length;                       // whole pages
  std::size_t alignment = page_size;  // a power of two, at least a page
  bytes charge;                       // at most `length`: what of it can become resident
};

// Charges; reclaims if need be, but does not wait. For a cache's or table's creation, which must have its memory now.
bool charge_now(memory_budget& budget, bytes amount);
// The same for a constructor: std::bad_alloc if there is no room.
budget_charge charge_or_throw(memory_budget& budget, bytes amount);

// Charges, then maps. ENOMEM if the budget has no room now or the system no memory; then nothing stays charged (KF-48).
result<void*> map_span(memory_budget& budget, const span_shape& shape);
// Unmaps, then releases: so that memory is never used that is not charged.
void unmap_span(memory_budget& budget, const span_shape& shape, void* address);

}  // namespace larder::cache

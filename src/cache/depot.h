// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <larder/memory_budget.h>

#include "base/intrusive_list.h"

namespace larder::cache {

// A cache's depot: batches of pointers to free built objects, on their way between the CPUs' arrays and the slabs. What
// one CPU puts and another gets passes here, a batch under one turn of the lock, and never sees a slab. Bounded by the
// working set: batches that lay here through a whole period are surplus (Bonwick and Adams, 2001).
//
// Batches stand eight to a page, charged to the budget; pages that were spare (without a full batch) through a whole
// period go back to the system, but for one. Not sooner: what comes in bursts would map and unmap pages with each.
// Every call is made under the mutex of the cache's slab layer.
//
// Laws (audit):   objects = Σ count of full batches      0 < count ≤ batch_max      low_water ≤ full batches
//                 spare = pages of blanks only           spare_low_water ≤ spare
class depot {
 public:
  static constexpr std::size_t batch_max = 61;
  struct batch {
    batch* next;
    std::uint64_t count;
    void* objects[batch_max];
  };

  explicit depot(memory_budget& budget) : budget_(budget) {}
  // Empty of objects.
  ~depot();
  depot(const depot&) = delete;
  depot& operator=(const depot&) = delete;

  // A batch to fill: the caller's until `add` or `recycle`. Null if the budget has no room for one.
  batch* blank();
  void recycle(batch* emptied);
  // Takes a batch with objects in it.
  void add(batch* filled);
  // The batch that was added last, or null.
  batch* take();

  // Gives back all pages if no batch is full.
  void release_spare();

  std::size_t batches() const { return full_; }
  std::size_t objects() const { return objects_; }
  bytes charged() const { return charged_; }

  // Batches that nobody needed since the last `begin_period`.
  std::size_t surplus() const { return low_water_; }
  // Gives back the pages that nobody needed either.
  void begin_period();

  void audit(const char* cache_name) const;

 private:
  struct page;
  void release(page& unused);

  memory_budget& budget_;
  batch* top_ = nullptr;  // full ones
  std::size_t full_ = 0;
  std::size_t objects_ = 0;
  std::size_t low_water_ = 0;               // the least `full_` was
  base::intrusive_list<page> with_blanks_;  // spare ones last
  std::size_t pages_ = 0;
  std::size_t spare_ = 0;
  std::size_t spare_low_water_ = 0;  // the least `spare_` was
  bytes charged_;
};

}  // namespace larder::cache

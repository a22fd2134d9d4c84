// SPDX-License-Identifier: Apache-2.0
//
// What a cache tells of itself, and the check of its laws (cache_state.cc).
#include <algorithm>

#include "base/check.h"
#include "cache/cache_state.h"

namespace larder {

raw_cache::statistics raw_cache::state::figures() const {
  statistics now;
  {
    const base::lock locked(queue_guard);
    now.waits = waits;
    now.waiting = queue.size();
  }
  const base::lock locked(slabs_guard);
  const cache::cpu_cache::figures arrays = cpus.sum();
  // Objects that move from one array to another while they are counted may count twice.
  now.objects_cached = std::min<std::uint64_t>(arrays.cached, slabs.handed_out() - depot.objects());
  now.objects_in_depot = depot.objects();
  now.objects_out = slabs.handed_out() - now.objects_in_depot - now.objects_cached;
  now.objects_built = slabs.built();
  now.objects_per_slab = geometry.capacity;
  now.slabs_full = slabs.full_slabs();
  now.slabs_partial = slabs.partial_slabs();
  now.slabs_empty = slabs.empty_slabs();
  now.constructed = constructed;
  now.construct_failures = construct_failures;
  now.destroyed = destroyed;
  now.gets = arrays.gets + gets_below;
  now.puts = arrays.puts + puts_below;
  now.scratch_used_most = scratch_used_most;
  now.scratch_given_back = scratch_given_back;
  now.slab_bytes = geometry.shape.charge;
  now.charged = geometry.shape.charge * slabs.slabs() + arrays.charged + depot.charged() + own_memory.amount();
  return now;
}

// Stacks are told by their guards; what is in use of them is theirs as a whole.
void raw_cache::state::describe(memory_account& into) const {
  const base::lock locked(slabs_guard);
  const cache::cpu_cache::figures arrays = cpus.sum();
  const std::size_t cached = std::min<std::size_t>(arrays.cached + depot.objects(), slabs.handed_out());
  const bytes slab = geometry.shape.charge;
  const std::size_t used_slabs = slabs.slabs() - slabs.empty_slabs();
  into.empty_slabs += slab * slabs.empty_slabs();
  into.metadata += arrays.charged + depot.charged() + own_memory.amount();
  if (chosen.uncharged_per_object.count != 0) {
    into.stacks += slab * used_slabs;
    return;
  }
  const bytes each{geometry.stride};
  into.live_objects += each * (slabs.handed_out() - cached);
  into.magazines += each * cached;
  into.free_objects += each * (geometry.capacity * used_slabs - slabs.handed_out());
  into.metadata += (slab - each * geometry.capacity) * used_slabs;
}

void raw_cache::state::audit() const {
  {
    const base::lock locked(queue_guard);
    LARDER_CHECK(waiting == queue.size(), "cache \"%s\": %u getters counted, %zu queued", name.c_str(), waiting.load(),
                 queue.size());
  }
  {
    const base::lock locked(slabs_guard);
    slabs.audit();
    depot.audit(name.c_str());
    cpus.audit(name.c_str());
    LARDER_CHECK(constructed - destroyed - destroying == slabs.built(),
                 "cache \"%s\": %llu constructed, %llu destroyed, %llu being destroyed, but %zu objects built",
                 name.c_str(), static_cast<unsigned long long>(constructed), static_cast<unsigned long long>(destroyed),
                 static_cast<unsigned long long>(destroying), slabs.built());
    const std::uint64_t cached = cpus.sum().cached + depot.objects();
    LARDER_CHECK(cached <= slabs.handed_out(),
                 "cache \"%s\": %llu objects in arrays and depot, but only %zu left their slabs", name.c_str(),
                 static_cast<unsigned long long>(cached), slabs.handed_out());
    LARDER_CHECK(awake || cpus.closed(), "cache \"%s\": the keeper sleeps, but the arrays are open", name.c_str());
  }
  const statistics now = figures();
  if (debug != nullptr) debug->audit(now.objects_out);
  LARDER_CHECK(now.gets - now.puts == now.objects_out, "cache \"%s\": %llu gets, %llu puts, but %llu objects out",
               name.c_str(), static_cast<unsigned long long>(now.gets), static_cast<unsigned long long>(now.puts),
               static_cast<unsigned long long>(now.objects_out));
}

}  // namespace larder

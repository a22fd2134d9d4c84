// SPDX-License-Identifier: Apache-2.0
//
// The object cache. A free built object is in one of two places: a CPU's array (cpu_cache.h) or its slab
// (slab_layer.h). A get tries this CPU's array, the slabs, a new slab, the arrays of the other CPUs; a put the array,
// half of which goes to the slabs when it is full. Constructors run for an object that somebody wants now and for none
// ahead of that (but the reservation), so a failure has one receiver.
//
// Objects move between arrays and slabs under slabs_guard only. So who holds it and has looked in the slabs and in
// every array has seen all there is, which is what makes the limit and the reservation exact: a get fails at the limit
// only if `limit` objects are out, and never while fewer than `reservation` are.
//
// Laws (audit), besides those of the slabs (slab_layer.cc):
//
//   out = handed_out − cached                   an object is with a user, in an array, or free in its slab
//   gets − puts = out                           each counted where it happened: an array, or below the arrays
//   constructed − destroyed = built             each built object was constructed once and not yet destroyed (KF-1)
//   charged = slabs · slab_bytes + pages of arrays + this structure
//   waiting = |queue|
//
// Cost: a get or put that the array serves is one atomic exchange; 62 others share one turn of slabs_guard.
#include "cache/cache_state.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

#include "base/check.h"
#include "budget/ticket.h"
#include "cache/sanitizer.h"
#include "cache/span.h"

namespace larder {

raw_cache::state::state(std::string_view chosen_name, const options& options_chosen, const cache::slab_geometry& layout,
                        memory_budget& charged, budget_charge own)
    : name(chosen_name),
      chosen(options_chosen),
      budget(charged),
      geometry(layout),
      own_memory(std::move(own)),
      cpus(charged, cache::cpu_cache::capacity_for(layout.stride)),
      slabs(geometry, name, chosen.limit, chosen.reservation),
      registered([this, component = "object_cache/" + name](const base::stat_visitor& show) {
        const statistics now = figures();
        show({component, "objects_out", now.objects_out});
        show({component, "objects_cached", now.objects_cached});
        show({component, "objects_built", now.objects_built});
        show({component, "slabs_full", now.slabs_full});
        show({component, "slabs_partial", now.slabs_partial});
        show({component, "slabs_empty", now.slabs_empty});
        show({component, "constructed", now.constructed});
        show({component, "construct_failures", now.construct_failures});
        show({component, "destroyed", now.destroyed});
        show({component, "gets", now.gets});
        show({component, "puts", now.puts});
        show({component, "waits", now.waits});
        show({component, "waiting", now.waiting});
        show({component, "charged_bytes", now.charged.count});
        show({component, "sharded_mode", 1});
      }) {
  budget.add_reclaimer(gives_empty_slabs, chosen.stage);
  budget.add_reclaimer(gives_arrays, reclaim_stage::last_resort);
}

result<std::unique_ptr<raw_cache::state>> raw_cache::state::create(std::string_view name, const options& chosen) {
  const result<cache::slab_geometry> layout =
      cache::slab_geometry::choose(chosen.size, chosen.alignment, chosen.uncharged_per_object);
  if (!layout) return layout.error();
  if (chosen.limit == 0 || chosen.limit < chosen.reservation) return error_from(EINVAL);
  memory_budget& budget = chosen.budget == nullptr ? memory_budget::process() : *chosen.budget;
  constexpr bytes own{sizeof(state)};
  if (!cache::charge_now(budget, own)) return error_from(ENOMEM);
  auto made = std::make_unique<state>(name, chosen, *layout, budget, budget_charge(budget, own));
  if (const result<void> built = made->build_reservation(); !built) return built.error();
  return made;
}

raw_cache::state::~state() {
  budget.remove_reclaimer(gives_arrays);
  budget.remove_reclaimer(gives_empty_slabs);
  for (;;) {
    cache::slab* last = nullptr;
    {
      const base::lock locked(slabs_guard);
      collect();
      LARDER_CHECK(slabs.handed_out() == 0, "cache \"%s\" destroyed while %zu objects are out", name.c_str(),
                   slabs.handed_out());
      last = slabs.remove_empty();
    }
    if (last == nullptr) return;
    destroy_slab(*last);
  }
}

// -- getting

void* raw_cache::state::hand_out(void* object) {
  cache::allow_access(object, geometry.object_size);
#ifdef LARDER_DEBUG_CHECKS
  cache::slab& owner = slabs.slab_of(object, "get");
  LARDER_CHECK(owner.note_out(owner.index_of(object), true), "cache \"%s\": %p was about to be handed out twice",
               name.c_str(), object);
#endif
  return object;
}

result<void*> raw_cache::state::get_below_array(time_point deadline) {
  if (!somebody_waits()) {  // else it would overtake
    const attempt now = take_now();
    if (now.object != nullptr) return hand_out(now.object);
    if (now.error) return now.error;
  }
  return wait(deadline);
}

void* raw_cache::state::try_get_below_array() {
  try {
    void* object = take_now().object;
    return object == nullptr ? nullptr : hand_out(object);
  } catch (...) {
    return nullptr;  // the constructor's: the same as its error
  }
}

raw_cache::state::attempt raw_cache::state::take_now() {
  cache::slab_layer::taken taken = take_and_refill();
  if (taken.object == nullptr && !taken.at_limit && budget.try_charge(geometry.shape.charge)) {
    taken = take_from_new_slab();
  }
  if (taken.object == nullptr) taken = collect_and_take();
  if (taken.object == nullptr) return {};
  return taken.built ? attempt{taken.object, {}} : build(taken.object);
}

cache::slab_layer::taken raw_cache::state::take_and_refill() {
  void* batch[cache::cpu_cache::batch_max];
  const base::lock locked(slabs_guard);
  const cache::slab_layer::taken taken = slabs.take();
  if (!taken.built) return taken;
  ++gets_below;
  if (somebody_waits()) return taken;
  const std::size_t count = slabs.take_batch(batch, cpus.batch());
  for (std::size_t kept = cpus.refill(batch, count); kept < count; ++kept) slabs.put(batch[kept]);
  return taken;
}

cache::slab_layer::taken raw_cache::state::collect_and_take() {
  const base::lock locked(slabs_guard);
  collect();
  const cache::slab_layer::taken taken = slabs.take();
  if (taken.built) ++gets_below;
  return taken;
}

cache::slab_layer::taken raw_cache::state::take_from_new_slab() {
  const result<void*> mapped = cache::map_charged_span(budget, geometry.shape);
  if (!mapped) return {};
  cache::slab& added = make_slab(*mapped);
  cache::slab_layer::taken taken;
  {
    const base::lock locked(slabs_guard);
    slabs.insert(added);
    taken = slabs.take();
    if (taken.built) ++gets_below;
  }
  if (somebody_waits()) serve_queue();  // there is room for more than one
  return taken;
}

result<void> raw_cache::state::construct(void* object) {
  cache::allow_access(object, geometry.object_size);
  if (chosen.construct == nullptr) return {};
  base::check_no_lock_held("constructing an object");
  return chosen.construct(object, chosen.context);
}

raw_cache::state::attempt raw_cache::state::build(void* object) {
  result<void> outcome;
  try {
    outcome = construct(object);
  } catch (...) {
    if (void* other = put_back_unbuilt(object)) return {other, {}};
    throw;
  }
  if (!outcome) {
    void* other = put_back_unbuilt(object);
    return {other, other == nullptr ? outcome.error() : std::error_code()};
  }
  const base::lock locked(slabs_guard);
  ++constructed;
  ++gets_below;
  return {object, {}};
}

void* raw_cache::state::put_back_unbuilt(void* object) {
  cache::forbid_access(object, geometry.object_size);
  void* other = nullptr;
  {
    const base::lock locked(slabs_guard);
    slabs.put_unbuilt(object);
    ++construct_failures;
    collect();
    other = slabs.take_spare();
    if (other != nullptr) ++gets_below;
  }
  if (somebody_waits()) serve_queue();  // under the limit there is room for one again
  return other;
}

cache::slab& raw_cache::state::make_slab(void* mapped) {
  cache::slab* added = cache::slab::make(mapped, geometry, slabs);
  cache::forbid_access(added->object(0), geometry.capacity * geometry.stride);
  return *added;
}

// Builds the reservation slab by slab. What was built when it fails goes with the state. Nobody takes a slab away
// meanwhile, because none is surplus before the reservation is complete.
result<void> raw_cache::state::build_reservation() {
  for (std::size_t left = chosen.reservation; left > 0;) {
    if (!cache::charge_now(budget, geometry.shape.charge)) return error_from(ENOMEM);
    const result<void*> mapped = cache::map_charged_span(budget, geometry.shape);
    if (!mapped) return mapped.error();
    cache::slab& added = make_slab(*mapped);
    {
      const base::lock locked(slabs_guard);
      slabs.insert(added);
    }
    for (std::size_t index = 0; index < geometry.capacity && left > 0; ++index, --left) {
      if (const result<void> outcome = construct(added.object(index)); !outcome) return outcome;
      cache::forbid_access(added.object(index), geometry.object_size);
      const base::lock locked(slabs_guard);
      slabs.note_built(added, index);
      ++constructed;
    }
  }
  return {};
}

// -- putting

void raw_cache::state::take_back([[maybe_unused]] void* object) {
#ifdef LARDER_DEBUG_CHECKS
  cache::slab& owner = slabs.slab_of(object, "put");
  LARDER_CHECK(owner.note_out(owner.index_of(object), false), "cache \"%s\": put of %p, which is not out (put twice?)",
               name.c_str(), object);
#endif
  if (chosen.reset != nullptr) chosen.reset(object, chosen.context);
  cache::forbid_access(object, geometry.object_size);
}

void raw_cache::state::put_below_array(void* object) {
  void* batch[cache::cpu_cache::batch_max];
  const base::lock locked(slabs_guard);
  const std::size_t count = cpus.flush(batch);
  for (std::size_t i = 0; i < count; ++i) slabs.put(batch[i]);
  if (cpus.make_array() && cpus.push(object)) return;
  slabs.put(object);
  ++puts_below;
}

void raw_cache::state::collect() {
  void* batch[cache::cpu_cache::batch_max];
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    while (const std::size_t count = cpus.collect_from(cpu, batch, std::size(batch))) {
      for (std::size_t i = 0; i < count; ++i) slabs.put(batch[i]);
    }
  }
}

// -- giving back

bytes raw_cache::state::trim(bytes wanted, bool collect_first) {
  if (collect_first) {
    const base::lock locked(slabs_guard);
    collect();
  }
  bytes released;
  while (released < wanted) {
    cache::slab* surplus = nullptr;
    {
      const base::lock locked(slabs_guard);
      surplus = slabs.remove_surplus();
    }
    if (surplus == nullptr) break;
    destroy_slab(*surplus);
    released += geometry.shape.charge;
  }
  return released;
}

void raw_cache::state::destroy_slab(cache::slab& removed) {
  base::check_no_lock_held("destroying objects");
  cache::allow_access(&removed, geometry.shape.length.count);
  const std::size_t built = removed.built_count();
  if (chosen.destroy != nullptr && built > 0) {
    for (std::size_t index = 0; index < geometry.capacity; ++index) {
      if (removed.is_built(index)) chosen.destroy(removed.object(index), chosen.context);
    }
  }
  cache::unmap_span(budget, geometry.shape, &removed);
  const base::lock locked(slabs_guard);
  destroyed += built;
}

// -- figures

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
  now.objects_cached = std::min<std::uint64_t>(arrays.cached, slabs.handed_out());
  now.objects_out = slabs.handed_out() - now.objects_cached;
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
  now.slab_bytes = geometry.shape.charge;
  now.charged = geometry.shape.charge * slabs.slabs() + arrays.charged + own_memory.amount();
  return now;
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
    const std::uint64_t cached = cpus.sum().cached;
    LARDER_CHECK(cached <= slabs.handed_out(), "cache \"%s\": %llu objects in arrays, but only %zu left their slabs",
                 name.c_str(), static_cast<unsigned long long>(cached), slabs.handed_out());
  }
  const statistics now = figures();
  LARDER_CHECK(now.gets - now.puts == now.objects_out, "cache \"%s\": %llu gets, %llu puts, but %llu objects out",
               name.c_str(), static_cast<unsigned long long>(now.gets), static_cast<unsigned long long>(now.puts),
               static_cast<unsigned long long>(now.objects_out));
  LARDER_CHECK(now.constructed - now.destroyed == now.objects_built,
               "cache \"%s\": %llu constructed, %llu destroyed, but %llu objects built", name.c_str(),
               static_cast<unsigned long long>(now.constructed), static_cast<unsigned long long>(now.destroyed),
               static_cast<unsigned long long>(now.objects_built));
}

}  // namespace larder

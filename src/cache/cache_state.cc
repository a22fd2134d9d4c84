// SPDX-License-Identifier: Apache-2.0
//
// The object cache. A free built object is in one of three places: a CPU's array (cpu_cache.h), a batch of the depot
// (depot.h), or its slab (slab_layer.h). A get tries this CPU's array, the depot, the slabs, a new slab, the arrays of
// the other CPUs; a put the array, a part of which goes to the depot when it is full. Constructors run for an object
// that somebody wants now and for none ahead of that (but the reservation), so a failure has one receiver.
//
// Objects move between arrays, depot and slabs under slabs_guard only. So who holds it and has looked in the slabs, the
// depot and, having stopped them, in every array has seen all there is, which is what makes the limit and the
// reservation exact: a get fails at the limit only if `limit` objects are out, and never while fewer than `reservation`
// are.
//
// Laws (audit), besides those of the layers (cpu_cache.cc, depot.h, slab_layer.cc):
//
//   out = handed_out − cached − in depot        an object is with a user, in an array, in the depot, or free in its
//   slab gets − puts = out                           each counted where it happened: an array, or below the arrays
//   constructed − destroyed − destroying = built
//                                               each built object was constructed once and not yet destroyed (KF-1)
//   charged = slabs · slab_bytes + arrays + depot + this structure
//   waiting = |queue|
//   awake, or the arrays are closed
//
// Cost: a get or put that the array serves is 14 instructions, inlined; some 60 and more others share one turn of
// slabs_guard. Whoever collects stops all CPUs' fast paths for the time of a fence, one or two microseconds.
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
namespace {

// What a user of the cache may do without a call into the library: nothing, where each get and put is watched.
cache::cpu_cache::inlined inlined_for([[maybe_unused]] const raw_cache::options& chosen) {
#if defined(LARDER_DEBUG_CHECKS) || defined(LARDER_ADDRESS_SANITIZER)
  return {false, false};
#else
  const bool watched = *chosen.debug != debug_checks::none;
  return {!watched, !watched && chosen.reset == nullptr};
#endif
}

bool is_possible(const raw_cache::options::scratch_pages& scratch, const raw_cache::options& chosen) {
  if (scratch.length == 0) return true;
  return chosen.alignment == page_size && scratch.offset % page_size == 0 && scratch.length % page_size == 0 &&
         scratch.length <= chosen.size && scratch.offset <= chosen.size - scratch.length;
}

}  // namespace

raw_cache::state::state(std::string_view chosen_name, const options& options_chosen, const cache::slab_geometry& layout,
                        memory_budget& charged, budget_charge own, detail::cpu_front& users)
    : os::fork_participant(base::lock_rank::cache_waiters),
      name(chosen_name),
      chosen(options_chosen),
      budget(charged),
      geometry(layout),
      own_memory(std::move(own)),
      debug(cache::debug_layer::make(*chosen.debug, name, geometry, chosen)),
      source(charged, geometry.shape),
      cpus(charged, users, inlined_for(options_chosen),
           options_chosen.used_size == 0 ? layout.stride : std::min(options_chosen.used_size, layout.stride),
           options_chosen.limit),
      depot(charged),
      slabs(geometry, name, chosen.limit, 0, cache::slab_order::fullest_first, chosen.scratch.length != 0),
      registered([this, component = "object_cache/" + name](const base::stat_visitor& show) {
        const statistics now = figures();
        show({component, "objects_out", now.objects_out});
        show({component, "objects_cached", now.objects_cached});
        show({component, "objects_in_depot", now.objects_in_depot});
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
        if (chosen.scratch.length != 0) {
          show({component, "scratch_used_most_bytes", now.scratch_used_most.count});
          show({component, "scratch_given_back_bytes", now.scratch_given_back.count});
        }
        show({component, "sharded_mode", os::sequences() == os::sequence_mode::sharded});
      }) {
  cpus.close();  // at rest, until it is first used
  cache::keeper::of_process().add(*this);
  os::join_forks(*this);
  budget::add_describer(*this, budget);
  budget.add_reclaimer(gives_empty_slabs, chosen.stage);
  budget.add_reclaimer(gives_arrays, reclaim_stage::last_resort);
}

result<std::unique_ptr<raw_cache::state>> raw_cache::state::create(std::string_view name, const options& asked,
                                                                   detail::cpu_front& users) {
  options chosen = asked;
  chosen.debug = cache::debug_layer::checks_for(name, asked);
  const result<cache::slab_geometry> layout =
      cache::slab_geometry::choose(chosen.size, chosen.alignment, chosen.uncharged_per_object,
                                   cache::debug_layer::margins_for(*chosen.debug, chosen));
  if (!layout) return layout.error();
  if (!is_possible(chosen.scratch, chosen)) return error_from(EINVAL);
  if (chosen.limit == 0 || chosen.limit < chosen.reservation) return error_from(EINVAL);
  memory_budget& budget = chosen.budget == nullptr ? memory_budget::process() : *chosen.budget;
  const bytes own = bytes{sizeof(state) + (*chosen.debug == debug_checks::none ? 0 : sizeof(cache::debug_layer))} +
                    cache::cpu_cache::own_bytes();
  if (!cache::charge_now(budget, own)) return error_from(ENOMEM);
  auto made = std::make_unique<state>(name, chosen, *layout, budget, budget_charge(budget, own), users);
  made->reservation = chosen.reservation;
  if (const result<void> built = made->fill_reservation(chosen.reservation); !built) return built.error();
  return made;
}

raw_cache::state::~state() {
  os::leave_forks(*this);
  cache::keeper::of_process().remove(*this);
  budget::remove_describer(*this);
  budget.remove_reclaimer(gives_arrays);
  budget.remove_reclaimer(gives_empty_slabs);
  for (;;) {
    cache::slab* last = nullptr;
    {
      const base::lock locked(slabs_guard);
      collect();
      if (debug != nullptr && slabs.handed_out() > lost_in_fork)
        debug->die_of_objects_out(slabs.handed_out() - lost_in_fork);
      LARDER_CHECK(slabs.handed_out() <= lost_in_fork, "cache \"%s\" destroyed while %zu objects are out", name.c_str(),
                   slabs.handed_out() - lost_in_fork);
      last = slabs.remove_any();
      if (last != nullptr) destroying += last->built_count();
    }
    if (last == nullptr) return;
    destroy_slab(*last);
  }
}

// -- getting

void* raw_cache::state::hand_out(void* object) {
  cache::allow_access(object, geometry.object_size);
  if (debug != nullptr) debug->hand_out(object);
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

void raw_cache::state::come_below() {
  ++visits_below;
  if (cpus.closed() || (cpus.pushes_held() && !somebody_waits())) cpus.open(somebody_waits());
  if (awake && heard) return;
  awake = true;
  heard = cache::keeper::of_process().wake(*this);
}

cache::slab_layer::taken raw_cache::state::take_and_refill() {
  const base::lock locked(slabs_guard);
  come_below();
  // Who waits is to get the next ones, from below.
  const bool refill = !somebody_waits();
  if (void* object = take_from_depot(refill)) return {object, true, false};
  const cache::slab_layer::taken taken = slabs.take();
  if (!taken.built) return taken;
  ++gets_below;
  if (!refill || !cpus.make_array()) return taken;
  void* batch[cache::depot::batch_max];
  const std::size_t count = slabs.take_batch(batch, std::min(std::size(batch), cpus.move_length()));
  for (std::size_t moved = cpus.refill(batch, count); moved < count; ++moved) slabs.put(batch[moved]);
  return taken;
}

// An object of the depot, or null; what else is in its batch, and more, goes to this CPU's array.
void* raw_cache::state::take_from_depot(bool refill) {
  cache::depot::batch* batch = depot.take();
  if (batch == nullptr) return nullptr;
  void* object = batch->objects[--batch->count];
  ++gets_below;
  std::size_t wanted = 0;
  if (refill && cpus.make_array()) {
    cpus.note_miss(cache::cpu_cache::miss::empty);
    wanted = cpus.move_length();
  }
  while (batch != nullptr && wanted > 0) {
    const std::size_t moved =
        batch->count == 0 ? 0 : cpus.refill(batch->objects, std::min<std::size_t>(batch->count, wanted));
    if (moved < batch->count) {
      std::copy(batch->objects + moved, batch->objects + batch->count, batch->objects);
      batch->count -= moved;
      break;
    }
    wanted -= moved;
    depot.recycle(batch);
    batch = wanted > 0 ? depot.take() : nullptr;
  }
  if (batch != nullptr && batch->count > 0) {
    depot.add(batch);
  } else if (batch != nullptr) {
    depot.recycle(batch);
  }
  return object;
}

cache::slab_layer::taken raw_cache::state::collect_and_take() {
  const base::lock locked(slabs_guard);
  collect();
  const cache::slab_layer::taken taken = slabs.take();
  if (taken.built) ++gets_below;
  return taken;
}

cache::slab_layer::taken raw_cache::state::take_from_new_slab() {
  const result<void*> mapped = source.take_charged();
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
  if (debug != nullptr) debug->before_construct(object);
  if (chosen.construct != nullptr) {
    base::check_no_lock_held("constructing an object");
    if (result<void> outcome = chosen.construct(object, chosen.context); !outcome) return outcome;
  }
  if (debug != nullptr) debug->after_construct(object);
  return {};
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
  if (debug != nullptr) debug->construct_failed(object);
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
  cache::slab* added = cache::slab::make(mapped, geometry);
  if (debug != nullptr) debug->begin_slab(*added);
  cache::forbid_access(added->object(0), geometry.capacity * geometry.stride);
  return *added;
}

// -- putting

void raw_cache::state::take_back(void* object) {
  if (debug != nullptr) debug->begin_take_back(object);
#ifdef LARDER_DEBUG_CHECKS
  cache::slab& owner = slabs.slab_of(object, "put");
  LARDER_CHECK(owner.note_out(owner.index_of(object), false), "cache \"%s\": put of %p, which is not out (put twice?)",
               name.c_str(), object);
#endif
  if (chosen.reset != nullptr) chosen.reset(object, chosen.context);
  if (debug != nullptr) debug->end_take_back(object);
  cache::forbid_access(object, geometry.object_size);
}

void raw_cache::state::put_below_array(void* object) {
  const base::lock locked(slabs_guard);
  come_below();
  if (!cpus.pushes_held() && cpus.make_array()) {
    if (cpus.push(object)) return;
    cpus.note_miss(cache::cpu_cache::miss::full);
    if (cpus.push(object)) return;
    flush_array();
    if (cpus.push(object)) return;
  }
  slabs.put(object);
  ++puts_below;
}

void raw_cache::state::flush_array() {
  for (std::size_t left = cpus.move_length(); left > 0;) {
    const std::size_t wanted = std::min(left, cache::depot::batch_max);
    cache::depot::batch* batch = depot.blank();
    void* objects[cache::depot::batch_max];
    const std::size_t moved = cpus.flush(batch == nullptr ? objects : batch->objects, wanted);
    if (batch == nullptr) {
      for (std::size_t i = 0; i < moved; ++i) slabs.put(objects[i]);
    } else if (moved == 0) {
      depot.recycle(batch);
    } else {
      batch->count = moved;
      depot.add(batch);
    }
    if (moved < wanted) return;
    left -= moved;
  }
}

}  // namespace larder

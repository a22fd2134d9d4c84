// SPDX-License-Identifier: Apache-2.0
//
// What happens off the users' paths: how a cache gives back what nobody needs, at once when it is asked to (trim, and
// the budget's reclaim), and by itself in the keeper's rounds.
//
// A round moves to the slabs what CPUs hold that hardly got anything in the last period, and the batches that lay in
// the depot all the time; then it destroys the slabs that were empty all the time, down to the reservation, and gives
// back the scratch of free objects in slabs that were not used all the time, once until such a slab is used again.
// Where nobody has used the cache for a whole period, that is everything: the cache is at rest then, its arrays closed,
// and the keeper does not come again before somebody comes below the arrays. So an idle cache is at rest within two
// periods (KF-11).
#include <algorithm>
#include <exception>
#include <iterator>

#include "base/check.h"
#include "base/mutant.h"
#include "cache/cache_state.h"
#include "cache/sanitizer.h"
#include "cache/span.h"
#include "os/memory.h"

namespace larder {
namespace {

// Objects whose scratch a round looks at, so that its most is known of a cache that nothing of goes back.
constexpr std::size_t measured_per_round = 32;

}  // namespace

void raw_cache::state::empty_arrays(bool idle_only) {
  void* objects[cache::depot::batch_max];
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    if (idle_only && !cpus.is_idle(cpu)) continue;
    while (const std::size_t count = cpus.take_from(cpu, objects, std::size(objects))) {
      for (std::size_t i = 0; i < count; ++i) slabs.put(objects[i]);
    }
    if (idle_only) cpus.drop_array(cpu);
  }
}

void raw_cache::state::spill(cache::depot::batch* batch) {
  for (std::size_t i = 0; i < batch->count; ++i) slabs.put(batch->objects[i]);
  depot.recycle(batch);
}

void raw_cache::state::spill_depot() {
  while (cache::depot::batch* batch = depot.take()) spill(batch);
  depot.release_spare();
}

void raw_cache::state::collect() {
  spill_depot();
  if (cpus.pushes_held() || (!somebody_waits() && cpus.was_empty())) return;  // nothing is in an array
  cpus.close();
  empty_arrays(false);
  // Where somebody waits, all puts come below until nobody does. At rest the arrays stay closed.
  if (awake) cpus.open(somebody_waits() && !base::is_mutant(base::mutant::pushes_not_held));
}

bytes raw_cache::state::trim(bytes wanted, bool collect_first) {
  bytes released;
  {
    const base::lock locked(slabs_guard);
    const bytes before = depot.charged();
    spill_depot();
    released = before - depot.charged();
    if (collect_first) collect();
  }
  while (released < wanted) {
    cache::slab* surplus = nullptr;
    {
      const base::lock locked(slabs_guard);
      surplus = slabs.remove_surplus();
      if (surplus != nullptr) destroying += surplus->built_count();
    }
    if (surplus == nullptr) break;
    destroy_slab(*surplus);
    released += geometry.shape.charge;
  }
  while (collect_first && released < wanted) {
    const base::lock locked(slabs_guard);
    cache::slab* spared = slabs.find_cold(true);
    if (spared == nullptr) break;
    give_back_scratch(*spared);
  }
  return released;
}

// -- scratch

// The system is called with the lock held, so that nobody gets the object meanwhile: it counts as free all the time,
// and a get at the limit is refused only if it must be. For one slab at a time: a few microseconds for each object.
void raw_cache::state::give_back_scratch(cache::slab& cold) {
  for (std::size_t index = 0; index < geometry.capacity; ++index) {
    if (!cold.is_built(index)) continue;
    if (!cold.is_free(index) && !base::is_mutant(base::mutant::scratch_of_anybody)) continue;
    char* scratch = static_cast<char*>(cold.object(index)) + chosen.scratch.offset;
    const bytes length{chosen.scratch.length};
    const result<os::residency> found = os::look_for_residents(scratch, length);
    const bytes untouched = found ? found->untouched : bytes{};
    if (untouched == length) continue;
    if (found) scratch_used_most = std::max(scratch_used_most, length - untouched);
    // What the system refuses (locked memory) stays, and is tried again after the object's next use.
    if (os::discard(scratch + untouched.count, length - untouched) && found) scratch_given_back += found->resident;
  }
}

bytes raw_cache::state::scratch_used(void* object) const {
  const bytes length{chosen.scratch.length};
  const auto found = os::look_for_residents(static_cast<char*>(object) + chosen.scratch.offset, length);
  return found ? length - found->untouched : bytes{};
}

// Objects may be with users meanwhile: only the system's page tables are looked at.
void raw_cache::state::measure_some_scratch(std::size_t objects_max) {
  if (chosen.scratch.length == 0) return;
  const base::lock locked(slabs_guard);
  slabs.look_at_some(std::max<std::size_t>(1, objects_max / geometry.capacity), [this](cache::slab& each) {
    for (std::size_t index = 0; index < geometry.capacity; ++index) {
      if (!each.is_built(index)) continue;
      scratch_used_most = std::max(scratch_used_most, scratch_used(each.object(index)));
    }
  });
}

bytes raw_cache::state::measure_scratch() {
  measure_some_scratch(256);
  const base::lock locked(slabs_guard);
  return scratch_used_most;
}

void raw_cache::state::destroy_slab(cache::slab& removed) {
  base::check_no_lock_held("destroying objects");
  cache::allow_access(&removed, geometry.shape.length.count);
  const std::size_t built = removed.built_count();
  bytes deepest;
  if ((chosen.destroy != nullptr || debug != nullptr || chosen.scratch.length != 0) && built > 0) {
    for (std::size_t index = 0; index < geometry.capacity; ++index) {
      // What is built and not free was out when this process was forked, in who knows what state.
      if (!removed.is_built(index) || !removed.is_free(index)) continue;
      void* object = removed.object(index);
      if (chosen.scratch.length != 0) deepest = std::max(deepest, scratch_used(object));
      if (debug != nullptr) debug->before_destroy(object);
      if (chosen.destroy != nullptr) chosen.destroy(object, chosen.context);
      if (debug != nullptr) debug->after_destroy(object);
    }
  }
  if (debug != nullptr) debug->end_slab(removed);
  source.give_back(&removed);
  const base::lock locked(slabs_guard);
  destroyed += built;
  destroying -= built;
  scratch_used_most = std::max(scratch_used_most, deepest);
}

// -- the reservation

result<void> raw_cache::state::fill_reservation(std::size_t objects_max) {
  for (;;) {
    std::size_t announced = 0;
    {
      const base::lock locked(slabs_guard);
      // As far as it is built it is promised, so that what follows does not reclaim it.
      slabs.promise(std::min(reservation, slabs.built()));
      if (slabs.built() >= reservation) return {};
      announced = slabs.begin_building(std::min({reservation - slabs.built(), geometry.capacity, objects_max}));
    }
    if (announced == 0) return {};  // the round's bound; or the limit, by objects under their constructors
    objects_max -= announced;
    if (const result<void> filled = fill_slab(announced); !filled) return filled;
    if (somebody_waits()) serve_queue();
  }
}

// Builds so many objects in a slab of its own, which nobody sees before it is ready.
result<void> raw_cache::state::fill_slab(std::size_t announced) {
  const auto give_up = [&](std::error_code reason) -> result<void> {
    const base::lock locked(slabs_guard);
    slabs.end_building(announced, 0);
    return reason;
  };
  if (!cache::charge_now(budget, geometry.shape.charge)) return give_up(error_from(ENOMEM));
  const result<void*> mapped = source.take_charged();
  if (!mapped) return give_up(mapped.error());
  cache::slab& fresh = make_slab(*mapped);
  result<void> outcome;
  std::exception_ptr thrown;
  std::size_t built = 0;
  for (; built < announced; ++built) {
    try {
      outcome = construct(fresh.object(built));
    } catch (...) {
      thrown = std::current_exception();
    }
    if (!outcome || thrown) {
      if (debug != nullptr) debug->construct_failed(fresh.object(built));
      cache::forbid_access(fresh.object(built), geometry.object_size);
      break;
    }
    cache::forbid_access(fresh.object(built), geometry.object_size);
    fresh.set_built(built, true);
  }
  {
    const base::lock locked(slabs_guard);
    slabs.end_building(announced, built);
    slabs.insert(fresh);
    slabs.promise(std::min(reservation, slabs.built()));  // what is built is reserved, even if the next one failed
    constructed += built;
    if (built < announced) ++construct_failures;
  }
  if (thrown) std::rethrow_exception(thrown);
  return outcome;
}

result<void> raw_cache::state::set_reservation(std::size_t count) {
  if (count > chosen.limit) return error_from(EINVAL);
  const base::lock locked(slabs_guard);
  reservation = count;
  slabs.promise(std::min(count, slabs.built()));
  come_below();  // the keeper builds what is missing, or destroys what is too much
  return {};
}

// -- the keeper's rounds

bool raw_cache::state::keep(std::size_t objects_max) {
  std::size_t batches_left = 0;
  std::size_t slabs_left = 0;
  bool idle = false;
  {
    const base::lock locked(slabs_guard);
    const bool used_arrays = cpus.note_period();
    idle = !used_arrays && visits_below == visits_below_seen && !somebody_waits();
    visits_below_seen = visits_below;
    batches_left = idle ? depot.batches() : depot.surplus();
    slabs_left = idle ? slabs.slabs() : slabs.surplus_empty();
    if (!cpus.closed() && (idle || cpus.any_idle())) {
      // Not held because somebody waits by now: others' arrays still hold objects, and held pushes say that none does.
      const bool held = base::is_mutant(base::mutant::round_holds_pushes) ? somebody_waits() : cpus.pushes_held();
      cpus.close();
      empty_arrays(true);
      if (!idle) cpus.open(held);
    }
    depot.begin_period();
    slabs.begin_period();
  }
  measure_some_scratch(measured_per_round);
  std::size_t objects_left = objects_max;
  for (; batches_left > 0 && objects_left > 0; --batches_left) {
    const base::lock locked(slabs_guard);
    cache::depot::batch* batch = depot.take();
    if (batch == nullptr) break;
    objects_left -= std::min<std::size_t>(objects_left, batch->count);
    spill(batch);
  }
  for (; slabs_left > 0 && objects_left > 0; --slabs_left) {
    cache::slab* surplus = nullptr;
    {
      const base::lock locked(slabs_guard);
      surplus = slabs.remove_surplus();
      if (surplus != nullptr) destroying += surplus->built_count();
    }
    if (surplus == nullptr) break;
    objects_left -= std::min(objects_left, geometry.capacity);
    destroy_slab(*surplus);
  }
  while (objects_left > 0) {
    const base::lock locked(slabs_guard);
    cache::slab* cold = slabs.find_cold(idle);
    if (cold == nullptr) break;
    objects_left -= std::min(objects_left, geometry.capacity);
    give_back_scratch(*cold);
  }
  try {
    (void)fill_reservation(objects_left);
  } catch (...) {
    // The constructor's: the next round tries again.
  }
  const base::lock locked(slabs_guard);
  const bool open = !cpus.closed() && !base::is_mutant(base::mutant::rest_without_closing);
  if (open || depot.batches() > 0 || slabs.has_surplus() || slabs.has_cold() || slabs.built() < reservation)
    return true;
  depot.release_spare();
  awake = false;
  return false;
}

// -- fork

void raw_cache::state::before_fork() {
  queue_guard.lock_for_fork();
  slabs_guard.lock_for_fork();
  source.lock_for_fork();
  cpus.lock_for_fork();
}

void raw_cache::state::in_parent() {
  cpus.unlock_after_fork();
  source.unlock_after_fork();
  slabs_guard.unlock_after_fork();
  queue_guard.unlock_after_fork();
}

void raw_cache::state::in_child() {
  // Who waited, waits in the parent.
  while (queue.pop_front() != nullptr) continue;
  waiting.store(0, base::memory_order_relaxed);
  slabs.forget_building();
  const cache::cpu_cache::figures arrays = cpus.sum();
  lost_in_fork = slabs.handed_out() - arrays.cached - depot.objects();
  // What was on its way to or from a user then, or under its constructor, is out for ever, and counts as that.
  gets_below = arrays.puts + puts_below + lost_in_fork - arrays.gets;
  constructed = slabs.built() + destroyed;
  destroying = 0;
  cpus.unlock_after_fork();
  // The first who comes below opens the arrays and wakes this process's keeper.
  cpus.close();
  awake = false;
  source.forget_lost();
  source.unlock_after_fork();
  slabs_guard.unlock_after_fork();
  queue_guard.unlock_after_fork();
}

}  // namespace larder

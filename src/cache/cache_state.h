// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include <larder/memory_budget.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "base/registry.h"
#include "budget/account.h"
#include "cache/cpu_cache.h"
#include "cache/debug_layer.h"
#include "cache/depot.h"
#include "cache/keeper.h"
#include "cache/slab.h"
#include "cache/slab_layer.h"
#include "cache/slab_source.h"
#include "os/fork.h"
#include "os/parker.h"

namespace larder {

// What a raw_cache is made of. The ladder of a get, one condition a rung:
//
//   get         this CPU's array, inlined                              larder/raw_cache.h
//   take_now    a batch of the depot, refilling the array              cache_state.cc
//                 the fullest slab with room, refilling the array
//                   a new slab, charged and mapped
//                     what the other CPUs' arrays hold
//   wait        in the queue, for an object or for memory              cache_wait.cc
//
// Lock order: queue_guard, slabs_guard, an array's (without sequences), the keeper's, the budget's. User code runs
// under none of them.
struct raw_cache::state final : cache::kept, os::fork_participant, budget::describer {
  // `users` is what the inlined part of the cache looks at.
  static result<std::unique_ptr<state>> create(std::string_view name, const options& chosen, detail::cpu_front& users);
  state(std::string_view chosen_name, const options& options_chosen, const cache::slab_geometry& layout,
        memory_budget& charged, budget_charge own, detail::cpu_front& users);
  // Dies if objects are out.
  ~state() override;
  state(const state&) = delete;
  state& operator=(const state&) = delete;

  // A getter in the queue, on its own stack.
  struct getter : base::list_link<> {
    os::parker& owner = os::parker::current();
    void* handed = nullptr;  // the object that a putter gave it, taking it from the queue; guarded by queue_guard
  };

  // An object, or why there is none.
  struct attempt {
    void* object = nullptr;
    std::error_code error;  // none: there may be one later
  };

  // -- getting
  // Everything short of waiting. Throws what the constructor throws.
  attempt take_now();
  result<void*> get_below_array(time_point deadline);
  void* try_get_below_array();
  // slabs_guard is held: whoever comes below the arrays opens what is closed without need, and wakes the keeper.
  void come_below();
  cache::slab_layer::taken take_and_refill();
  void* take_from_depot(bool refill);
  cache::slab_layer::taken collect_and_take();
  // Maps a slab that is charged already and takes its first object; none if the system has no memory.
  cache::slab_layer::taken take_from_new_slab();
  // Builds a taken object. Where the constructor fails, a built object is as good, if there is one.
  attempt build(void* object);
  void* put_back_unbuilt(void* object);
  result<void> construct(void* object);
  cache::slab& make_slab(void* mapped);
  // The last thing before a user has the object: tells sanitizers and debug builds.
  void* hand_out(void* object);

  // -- putting
  // The first thing when a user has put an object: the same, and the reset hook.
  void take_back(void* object);
  void put_below_array(void* object);
  // Moves the longest unused part of this CPU's array below; slabs_guard is held.
  void flush_array();

  // -- the reservation (cache_keep.cc)
  // Builds what it lacks, up to about `objects_max`. Throws what the constructor throws.
  result<void> fill_reservation(std::size_t objects_max);
  result<void> fill_slab(std::size_t announced);
  result<void> set_reservation(std::size_t count);

  // -- giving back (cache_keep.cc)
  // Moves what all CPUs' arrays and the depot hold to the slabs; slabs_guard is held.
  void collect();
  void empty_arrays(bool idle_only);
  void spill(cache::depot::batch* batch);
  void spill_depot();
  bytes trim(bytes wanted, bool collect_first);
  // The scratch of a slab's free objects; slabs_guard is held.
  void give_back_scratch(cache::slab& cold);
  // How much of an object's scratch was ever touched: nothing if the system does not say.
  bytes scratch_used(void* object) const;
  void measure_some_scratch(std::size_t objects_max);
  bytes measure_scratch();
  void destroy_slab(cache::slab& removed);
  bool keep(std::size_t objects_max) override;
  void before_fork() override;
  void in_parent() override;
  void in_child() override;

  // -- waiting (cache_wait.cc)
  class queue_place;
  result<void*> wait(time_point deadline);
  result<void*> wait_in_queue(time_point deadline, bool& lacks_memory);
  bool nothing_is_out();
  // Gives waiting getters what there is. Called after anything that may have made an object or room for one available.
  void serve_queue();
  bool somebody_waits() const {
    // Relaxed: whoever looks here has first gone through slabs_guard, under which the getter looked after it had
    // counted itself; so either it found the object, or its count is seen (cache_wait.cc).
    return waiting.load(base::memory_order_relaxed) != 0;
  }

  statistics figures() const;
  void describe(memory_account& into) const override;
  void audit() const;

  // Gives this cache's memory back when the budget asks.
  struct slab_reclaimer final : reclaimer {
    slab_reclaimer(state& of, bool collects) : cache(of), collect_first(collects) {}
    bytes reclaim(bytes wanted) override { return cache.trim(wanted, collect_first); }
    state& cache;
    const bool collect_first;
  };

  // -- properties
  const std::string name;
  const options chosen;
  memory_budget& budget;
  const cache::slab_geometry geometry;
  budget_charge own_memory;                         // this structure, and the debug layer
  const std::unique_ptr<cache::debug_layer> debug;  // null without debug_checks

  cache::slab_source source;

  // -- CPU layer
  cache::cpu_cache cpus;

  // -- queue of getters
  base::atomic<std::uint32_t> waiting{0};  // getters in the queue; written under queue_guard
  mutable base::mutex queue_guard{base::lock_rank::cache_waiters};
  base::intrusive_list<getter> queue;  // guarded by queue_guard; oldest first
  std::uint64_t waits = 0;             // guarded by queue_guard

  // -- slab layer
  mutable base::mutex slabs_guard{base::lock_rank::cache_slabs};
  // All guarded by slabs_guard.
  cache::depot depot;
  cache::slab_layer slabs;
  std::uint64_t constructed = 0;
  std::uint64_t construct_failures = 0;
  std::uint64_t destroyed = 0;
  std::uint64_t destroying = 0;  // of slabs that were removed
  std::uint64_t gets_below = 0;  // that no array served
  std::uint64_t puts_below = 0;
  std::uint64_t visits_below = 0;       // of callers, below the arrays
  std::uint64_t visits_below_seen = 0;  // by the keeper's last round
  std::size_t reservation = 0;          // wanted; what the slab layer promises is built already
  bytes scratch_used_most;
  bytes scratch_given_back;
  std::size_t lost_in_fork = 0;  // objects that were out when this process was forked
  bool awake = false;            // the keeper comes
  bool heard = false;            // it has a thread to come with

  slab_reclaimer gives_empty_slabs{*this, false};
  slab_reclaimer gives_arrays{*this, true};
  base::registration registered;
};

}  // namespace larder

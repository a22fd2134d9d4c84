// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <larder/cpu_array.h>
#include <larder/debug.h>
#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

template <typename T, typename Traits>
class object_cache;

// Keeps objects of one size in their constructed state, ready for reuse on every CPU, in memory charged to a budget.
// The untyped core of object_cache<T>, which says the same in types.
//
// An object is built when it is first handed out and stays built, through any number of gets and puts, until its memory
// is given back. Free built objects wait in an array per CPU, below that in a depot of batches, and in slabs, the
// fullest first. A get or put that the array serves is a dozen instructions, inlined, without a lock or an atomic
// instruction. The keeper (keeper.h) gives back what is not used for two periods.
//
// Any thread or task may call anything at any time, from a thread's first instruction to its last destructor, and also
// from a constructor, destructor or reset hook of this cache; no lock is held when these are called. Whoever gets an
// object owns it until it puts it, from whichever thread. Not from a signal handler, though a handler may interrupt any
// call. After fork() the child has the cache as it was, may use and destroy it, and never gets back what the parent's
// other threads had out; the parent's waits are the parent's.
//
// After Bonwick's slab allocator (1994, 2001); the order by occupancy is that of the Xen win-pv drivers' cache, arrays
// in restartable sequences are tcmalloc's.
class LARDER_API raw_cache {
 public:
  static constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

  struct options {
    // Of one object: size 1 B to 1 GiB; alignment a power of two up to 4 KiB.
    std::size_t size = 0;
    std::size_t alignment = alignof(std::max_align_t);
    // Objects that are always built. `get` never fails and never waits for memory while fewer than that are out.
    std::size_t reservation = 0;
    // The most objects that are built at any time (those whose destructor is running already do not count).
    std::size_t limit = no_limit;
    // What all memory is charged to, before it is taken; outlives the cache. Null: memory_budget::process().
    memory_budget* budget = nullptr;
    // Builds an object in raw memory (zeroed the first time it is used, unless debug_checks::contents is on); by an
    // error or an exception it says that there is none. Null: memory as it is. A constructor that waits for this cache
    // or its budget may wait for itself.
    result<void> (*construct)(void* object, void* context) = nullptr;
    // Undoes `construct`, once for each success. Called in trim, in reclaim (where it must not wait for memory) and in
    // the cache's destructor. Must not throw.
    void (*destroy)(void* object, void* context) = nullptr;
    // Called by `put` first, to bring an object back to its constructed state. Must not throw.
    void (*reset)(void* object, void* context) = nullptr;
    void* context = nullptr;
    // The part of each object that never becomes resident (the guard page of a stack), in whole pages: not charged.
    bytes uncharged_per_object = {};
    // How much of an object its users touch as a rule (of a stack: the upper end); 0: all of it. What is kept ready for
    // each CPU is so many objects as its own cache memory might still hold.
    std::size_t used_size = 0;
    // Whole pages of each object whose contents nobody needs while it is free (a stack, below its owner's record). They
    // go back to the system, and read as zeros then, once the object was free in its slab for a whole period of the
    // keeper, and when `trim` or the budget wants more than empty slabs can give. Their charge stays. The objects must
    // be aligned to pages.
    struct scratch_pages {
      std::size_t offset = 0;
      std::size_t length = 0;
    } scratch = {};
    // When the budget asks for this cache's empty slabs.
    reclaim_stage stage = reclaim_stage::empty_slabs;
    // Checks of how objects are used. Nothing: what the environment's LARDER_DEBUG says for this name (debug.h).
    std::optional<debug_checks> debug = std::nullopt;
  };

  struct statistics {
    std::uint64_t objects_out = 0;       // with users
    std::uint64_t objects_cached = 0;    // in the arrays of the CPUs
    std::uint64_t objects_in_depot = 0;  // in batches
    std::uint64_t objects_built = 0;     // out, cached, in the depot, and free in slabs
    std::uint64_t objects_per_slab = 0;
    std::uint64_t slabs_full = 0;
    std::uint64_t slabs_partial = 0;
    std::uint64_t slabs_empty = 0;
    std::uint64_t constructed = 0;  // successes of the constructor so far, and so on
    std::uint64_t construct_failures = 0;
    std::uint64_t destroyed = 0;
    std::uint64_t gets = 0;
    std::uint64_t puts = 0;
    std::uint64_t waits = 0;    // gets that had to wait
    std::uint64_t waiting = 0;  // gets that wait now
    bytes scratch_used_most;    // of any object seen so far, from the lowest page that it touched to its scratch's end
    bytes scratch_given_back;   // resident pages, so far
    bytes slab_bytes;           // charged for each slab
    bytes charged;              // charged for everything now
  };

  // How the CPU layer runs, and why it is not the better way.
  struct mode {
    std::string_view name;
    std::string_view reason;
  };

  // Creates a cache and builds its reservation; may reclaim memory, does not wait for it. Errors: EINVAL for options
  // that make no sense (limit < reservation, size or alignment out of range), ENOMEM where the budget or the system has
  // not the memory, the constructor's error; the constructor's exception passes through.
  static result<std::unique_ptr<raw_cache>> create(std::string_view name, const options& chosen);
  // The same; throws std::bad_alloc for ENOMEM and std::system_error for other errors.
  raw_cache(std::string_view name, const options& chosen);
  // Dies, naming the cache and the count, if objects are still out. Destroys all objects.
  ~raw_cache();
  raw_cache(const raw_cache&) = delete;
  raw_cache& operator=(const raw_cache&) = delete;

  // A built object. Waits, first come first served, for an object that is put back or for the memory of a new slab,
  // whichever is first; parks the task if there is one, else the thread. Errors: ENOMEM at once if waiting cannot help
  // (no object is out and a slab can never fit the budget); ETIMEDOUT at the deadline; the constructor's error, if no
  // built object is free either. The constructor's exception passes through. A reclaimer must not wait here: it dies.
  result<void*> get(time_point deadline = no_deadline) {
    if (void* object = pop()) [[likely]]
      return object;
    return get_below(deadline);
  }
  // The same without waiting and without reclaiming: null if there is no object now, or the constructor failed.
  void* try_get() {
    if (void* object = pop()) [[likely]]
      return object;
    return try_get_below();
  }
  // Takes back an object that this cache gave, which is not null; never blocks for long, never fails. Dies on proven
  // misuse (an object of another cache, or one that is free already), at the latest when the object reaches its slab.
  void put(void* object) {
#if LARDER_INLINE_SEQUENCES
    if (detail::push_cached(front_, object)) [[likely]]
      return;
#endif
    put_below(object);
  }

  // Up to `count` objects; fewer where try_get would give null. Returns how many.
  std::size_t get_many(void** objects, std::size_t count);
  void put_many(void* const* objects, std::size_t count);

  // Collects the objects cached on all CPUs and in the depot, then destroys what is free in empty slabs and gives these
  // back, until `wanted` is released or only the reservation would be left; if that is not enough, the scratch of all
  // objects that are free then. Returns what it released to the budget.
  bytes trim(bytes wanted = unlimited);
  // Looks at the scratch of some of the objects that exist, free or not (256 at most, a microsecond each), and returns
  // statistics::scratch_used_most. What was seen otherwise: what goes back to the system and what is destroyed, and, in
  // each period of use, some by the keeper.
  bytes measure_scratch();

  statistics stats() const;
  // Checks every law of the cache's structure and dies on the first that is broken. No other call may run meanwhile
  // (the keeper may).
  void audit() const;
  mode active_mode() const;
  const std::string& name() const;
  std::size_t limit() const;
  std::size_t reservation() const;
  // Another reservation from now on. The keeper builds what is missing within a period, and tries again each period
  // where memory or the constructor fails; an object counts as reserved once it is built. EINVAL if it is above the
  // limit.
  result<void> set_reservation(std::size_t count);
  memory_budget& budget() const;

 private:
  struct state;
  template <typename T, typename Traits>
  friend class object_cache;

  raw_cache();
  // The first rung of a get: what this CPU's array has, or null.
  void* pop() {
#if LARDER_INLINE_SEQUENCES
    return detail::pop_cached(front_);
#else
    return nullptr;
#endif
  }
  // What the inlined part cannot do.
  result<void*> get_below(time_point deadline);
  void* try_get_below();
  void put_below(void* object);

  detail::cpu_front front_;  // leads to the arrays, once there is a state
  std::unique_ptr<state> state_;
};

}  // namespace larder

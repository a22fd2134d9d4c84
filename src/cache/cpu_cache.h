// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <larder/memory_budget.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/lock_rank.h"
#include "cache/span.h"
#include "os/cpu_array.h"

namespace larder::cache {

// A cache's CPU layer: an array of pointers to free built objects for each CPU (theory in cpu_cache.cc).
//
//  - pop and push may always refuse, for any reason; then the caller goes to the layer below.
//  - What flush, refill and take_from move is for a moment in no layer: they, and all that changes which arrays there
//    are, are called under the mutex of the layer below, so that nobody who looks there misses an object.
class cpu_cache {
 public:
  // What users of the cache may do without a call into the library.
  struct inlined {
    bool pop = true;
    bool push = true;
  };
  // `users` is what the inlined code looks at; it outlives this. `limit` objects are never more than exist.
  cpu_cache(memory_budget& budget, detail::cpu_front& users, inlined allowed, std::size_t object_length,
            std::size_t limit);
  // The arrays are empty.
  ~cpu_cache();
  cpu_cache(const cpu_cache&) = delete;
  cpu_cache& operator=(const cpu_cache&) = delete;

  // What this structure takes from the heap; its owner charges it.
  static bytes own_bytes();
  static raw_cache::mode active_mode();

  // This CPU's array: the last object pushed, or null; and false where there is no room.
  void* pop() { return sequences_ ? os::pop(own_) : pop_locked(); }
  bool push(void* object) { return sequences_ ? os::push(own_, object) : push_locked(object); }
  // As many as there are, and as fit.
  std::size_t pop_many(void** objects, std::size_t count);
  std::size_t push_many(void* const* objects, std::size_t count);

  // From here on the caller holds the mutex of the layer below.

  // Gives this CPU its array if it has none, charged to the budget. False where that fails, or there are to be none.
  bool make_array();
  // How many objects to move to or from this CPU's array at a time: a part of what it may hold.
  std::size_t move_length() const;
  // Moves between this CPU's array and the layer below; what users did not do counts as neither get nor put.
  std::size_t flush(void** objects, std::size_t count);
  std::size_t refill(void* const* objects, std::size_t count);
  // This CPU's array was full, or empty while the layer below had objects. Where both happen, more room would have
  // spared a pair of moves, so it gets more.
  enum class miss : unsigned char { full, empty };
  void note_miss(miss kind);

  // Ends every pop and push in progress, and keeps new ones out, until `open`. Not for long: all CPUs are slow then.
  void close();
  // `hold_pushes`: only pops may go on, so that every put comes to the layer below. Always pops again.
  void open(bool hold_pushes);
  // Closed: nothing is in any array. Held: neither, as long as nobody refills.
  bool is_open() const { return gate_.load(base::memory_order_relaxed) == gate::open; }
  bool closed() const { return gate_.load(base::memory_order_relaxed) == gate::closed; }
  bool pushes_held() const { return gate_.load(base::memory_order_relaxed) == gate::pushes_held; }
  // True only if all arrays were empty at one moment since the call.
  bool was_empty() const;

  // While closed: takes up to `count` objects from that CPU's array.
  std::size_t take_from(int cpu, void** objects, std::size_t count);
  // While closed, where it is empty: gives back that CPU's array.
  void drop_array(int cpu);
  int cpus() const { return cpus_; }

  // For the keeper, once a period. Whether any array was used since the last time; and afterwards, of one, whether it
  // was used too little to keep what it has.
  bool note_period();
  bool is_idle(int cpu) const { return accounts_[at(cpu)].idle; }
  bool any_idle() const;

  // Keeps all arrays as they are while the process forks.
  void lock_for_fork();
  void unlock_after_fork();

  struct figures {
    std::uint64_t cached = 0;
    std::uint64_t gets = 0;
    std::uint64_t puts = 0;
    bytes charged;
  };
  figures sum() const;
  void audit(const char* cache_name) const;

 private:
  enum class gate : unsigned char { open, pushes_held, closed };
  enum class use : unsigned char { pop, push };

  // What is known of a CPU's array besides its head. Guarded by the mutex of the layer below.
  struct account {
    std::uint64_t gets = 0;  // that arrays here had served when the word was `word_seen`: at the period's end
    std::uint64_t word_seen = 0;
    std::uint32_t entries = 0;  // room in memory; 0: no array
    int misses = 0;             // when full, less those when empty, that no growth has answered
    bool grown = false;         // has a span of its own
    bool idle = false;
  };

  static std::size_t at(int cpu) { return static_cast<std::size_t>(cpu); }
  static std::size_t length_for(std::size_t entries) { return sizeof(os::cpu_array) + entries * sizeof(void*); }
  std::size_t page_of(int cpu) const { return at(cpu) / arrays_per_page_; }
  // Null where this thread has none, or arrays cannot be found.
  os::cpu_array* array_of(int cpu) const;
  int current_cpu() const;

  void* pop_locked();
  bool push_locked(void* object);
  os::cpu_array* lock_current(use wanted) const;
  void lock(os::cpu_array& array) const;
  static bool try_lock(os::cpu_array& array);
  static void unlock(os::cpu_array& array);
  std::size_t take_locked(os::cpu_array& array, void** objects, std::size_t count, std::uint64_t step) const;
  std::size_t add_locked(os::cpu_array& array, void* const* objects, std::size_t count) const;

  void show(os::cpu_array_table* pops, os::cpu_array_table* pushes);
  bool may_grow_to(std::size_t capacity, std::size_t now) const;
  bool replace(int cpu, std::size_t entries);
  void release_memory(int cpu);
  static std::uint64_t gets_of(const account& of, std::uint64_t word);

  memory_budget& budget_;
  const bool sequences_;
  const int cpus_;
  const std::size_t object_length_;
  const std::size_t capacity_start_;  // 0: no arrays
  const std::size_t capacity_max_;
  const std::size_t arrays_per_page_;
  const std::size_t total_max_;  // of all capacities together

  // `own_` is the library's way to the arrays; `users_` that of inlined code, where it is allowed.
  os::array_front own_;
  os::array_front& users_;
  const inlined allowed_;
  base::atomic<gate> gate_{gate::open};  // written under the mutex below; relaxed: see lock_current
  const std::unique_ptr<os::cpu_array_table[]> table_;

  // Guarded by the mutex of the layer below.
  const std::unique_ptr<account[]> accounts_;
  const std::unique_ptr<char*[]> pages_;          // of arrays that have not grown
  const std::unique_ptr<unsigned[]> page_users_;  // arrays in each
  std::size_t total_ = 0;                         // of all capacities
  int arrays_ = 0;
  std::uint64_t flushed_ = 0;  // objects that left arrays, and came, without a user
  std::uint64_t refilled_ = 0;
  bytes charged_;
};

}  // namespace larder::cache

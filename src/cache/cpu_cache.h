// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <larder/memory_budget.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/lock_rank.h"
#include "os/cpu.h"

namespace larder::cache {

// A cache's CPU layer: an array of pointers to free built objects for each CPU, in the sharded form (cpu_cache.cc).
// What is above relies on this interface alone, which restartable sequences can fill as well:
//
//  - pop and push may always refuse, for any reason; then the caller goes to the layer below.
//  - `collect_from` gets all that is in an array. If it does not find an object, then what its caller did before is
//    seen by whoever pushes that object, after the push.
//  - What flush, refill and collect_from move is for a moment in no layer: they and make_array are called under the
//    mutex of the layer below, so that nobody who looks there misses an object or an array.
class cpu_cache {
 public:
  // Each array holds `capacity` objects; 0 turns the layer off.
  cpu_cache(memory_budget& budget, std::size_t capacity);
  // The arrays are empty.
  ~cpu_cache();
  cpu_cache(const cpu_cache&) = delete;
  cpu_cache& operator=(const cpu_cache&) = delete;

  static std::size_t capacity_for(std::size_t object_size);
  static raw_cache::mode active_mode();
  // How many objects move between an array and the layer below at a time.
  static constexpr std::size_t batch_max = 62;
  std::size_t batch() const { return (capacity_ + 1) / 2; }

  // Gives this CPU its array if it has none yet, charged to the budget. False where that fails, or the layer is off.
  bool make_array();

  // This CPU's array, for users: the last object pushed, or null; and false where it is full.
  void* pop() {
    shard* mine = current_shard();
    if (mine == nullptr || !mine->try_lock()) return nullptr;
    void* object = nullptr;
    if (mine->count > 0) {
      object = mine->objects()[--mine->count];
      ++mine->gets;
    }
    mine->unlock();
    return object;
  }
  bool push(void* object) {
    shard* mine = current_shard();
    if (mine == nullptr || !mine->try_lock()) return false;
    const bool room = mine->count < capacity_;
    if (room) {
      mine->objects()[mine->count++] = object;
      ++mine->puts;
    }
    mine->unlock();
    return room;
  }
  std::size_t pop_many(void** objects, std::size_t count);
  std::size_t push_many(void* const* objects, std::size_t count);

  // This CPU's array, for moves to and from the layer below: half of it, what was pushed first; and what fits.
  std::size_t flush(void** objects);
  std::size_t refill(void* const* objects, std::size_t count);
  // Any CPU's array: up to `count` objects.
  std::size_t collect_from(int cpu, void** objects, std::size_t count);
  int cpus() const { return cpus_; }

  struct figures {
    std::uint64_t cached = 0;
    std::uint64_t gets = 0;
    std::uint64_t puts = 0;
    bytes charged;
  };
  figures sum() const;

 private:
  // The head of an array; the pointers follow it. Guarded by `locked`, but for that itself.
  struct shard {
    base::atomic<std::uint32_t> locked;
    std::uint32_t count;
    std::uint64_t gets;
    std::uint64_t puts;

    void** objects() { return reinterpret_cast<void**>(this + 1); }
    bool try_lock() {
      // The load spares other CPUs the line. Acquire: sees what the last holder wrote; partner: unlock.
      if (locked.load(base::memory_order_relaxed) != 0 || locked.exchange(1, base::memory_order_acquire) != 0) {
        return false;
      }
      base::note_locked(base::lock_rank::cache_shard);
      return true;
    }
    void lock();
    void unlock() {
      base::note_unlocked(base::lock_rank::cache_shard);
      locked.store(0, base::memory_order_release);  // partner: try_lock
    }
  };

  std::size_t page_of(int cpu) const { return static_cast<std::size_t>(cpu) / shards_per_page_; }
  shard* shard_in(char* page, int cpu) const {
    return reinterpret_cast<shard*>(page + static_cast<std::size_t>(cpu) % shards_per_page_ * shard_length_);
  }
  // Null if that CPU's array was not made yet.
  shard* shard_of(int cpu) const {
    char* page = pages_[page_of(cpu)].load(base::memory_order_acquire);  // partner: make_array
    return page == nullptr ? nullptr : shard_in(page, cpu);
  }
  int current_cpu() const {
    const int cpu = os::current_cpu();
    return cpu < cpus_ ? cpu : 0;
  }
  shard* current_shard() const { return capacity_ == 0 ? nullptr : shard_of(current_cpu()); }

  memory_budget& budget_;
  const std::size_t capacity_;
  const int cpus_;
  const std::size_t shard_length_;
  const std::size_t shards_per_page_;
  // Pages of arrays, each charged and mapped when first needed.
  const std::unique_ptr<base::atomic<char*>[]> pages_;
};

}  // namespace larder::cache

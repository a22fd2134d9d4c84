// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <string>
#include <string_view>

#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/raw_cache.h>
#include <larder/units.h>

namespace larder {

template <typename T>
class allocator;

// The sizes that memory is kept in, by number: each multiple of 8 up to 128 bytes, then 8 a doubling up to 32 KiB. So
// the smallest class that fits wastes less than 8 bytes, or less than 1 part in 9: of 2^k + 1 bytes, 2^k / 8 - 1 in a
// class of 2^k + 2^k / 8. Above, whole pages waste less than 1 in 9 too, so there the classes end.
struct size_classes {
  static constexpr std::size_t small_max = 128;
  static constexpr std::size_t size_max = std::size_t{32} << 10;
  static constexpr std::size_t alignment_max = page_size;
  static constexpr std::size_t count = small_max / 8 + std::size_t{8} * std::countr_zero(size_max / small_max);

  // The smallest class that serves such a request; `count` if none does. An object of a class is aligned to the largest
  // power of two that divides its size. That is enough for the size rounded up to the alignment: if the alignment is at
  // least the distance between two classes there, the rounded size is a class itself; else the alignment divides all.
  static constexpr std::size_t number_for(std::size_t size, std::size_t alignment) {
    if (size > size_max || alignment > alignment_max) return count;
    const std::size_t rounded = size == 0 ? alignment : round_up(size, alignment);
    if (rounded <= small_max) return (rounded + 7) / 8 - 1;
    const auto doubling = static_cast<std::size_t>(std::bit_width(rounded - 1)) - 1;  // 2^doubling < rounded
    const std::size_t eighth = doubling - 3;
    const std::size_t eighths = (rounded - (std::size_t{1} << doubling) + (std::size_t{1} << eighth) - 1) >> eighth;
    return small_max / 8 + (doubling - first_doubling) * 8 + eighths - 1;
  }
  static constexpr std::size_t size_of(std::size_t number) {
    if (number < small_max / 8) return (number + 1) * 8;
    const std::size_t above = number - small_max / 8;
    return (8 + above % 8 + 1) << (first_doubling + above / 8 - 3);
  }
  static constexpr std::size_t alignment_of(std::size_t number) {
    const std::size_t lowest_bit = size_of(number) & ~(size_of(number) - 1);
    return lowest_bit < alignment_max ? lowest_bit : alignment_max;
  }

 private:
  static constexpr std::size_t first_doubling = std::bit_width(small_max) - 1;
};

// Memory of any size for std::pmr containers, kept ready on every CPU and charged to a budget:
//
//   larder::memory_resource memory{"sessions", {.budget = &budget}};
//   std::pmr::list<session> sessions{&memory};
//
// A request of up to 32 KiB and an alignment of up to 4 KiB is an object of a raw_cache, one for each size class, made
// when the class is first needed; it costs what a get and a put cost. Larger ones, and alignments above, are spans:
// runs of whole pages mapped for the request, charged before that, and released after they are unmapped. A cache is
// named <name>/<size>, in the statistics and for LARDER_DEBUG (debug.h).
//
// Any thread or task, any time, without a lock but those of the caches. allocator<T> (allocator.h) is the same without
// the virtual call. The idea of caches by size behind a general allocator is Bonwick's (1994).
class LARDER_API memory_resource final : public std::pmr::memory_resource {
 public:
  struct options {
    // What all memory is charged to, before it is taken; outlives the resource. Null: memory_budget::process().
    memory_budget* budget = nullptr;
    // Where there is no room: wait for it, first come first served, parking the task if there is one, else the thread.
    // Otherwise the reclaimers are asked, and if that does not help the request fails.
    bool wait_for_memory = false;
  };

  struct statistics {
    std::uint64_t caches = 0;        // classes that have been needed
    std::uint64_t objects_out = 0;   // requests that caches serve now
    std::uint64_t objects_free = 0;  // ready in these caches
    std::uint64_t gets = 0;          // from caches, so far, and back to them
    std::uint64_t puts = 0;
    std::uint64_t spans_out = 0;  // requests that have a span of their own
    bytes bytes_out;              // of all requests: sizes of classes and lengths of spans
    bytes charged;                // for everything now
  };

  // Takes no memory from the budget yet.
  explicit memory_resource(std::string_view name);
  memory_resource(std::string_view name, const options& chosen);
  // Dies, naming the resource and the counts, if memory is out.
  ~memory_resource() override;
  memory_resource(const memory_resource&) = delete;
  memory_resource& operator=(const memory_resource&) = delete;

  // The one that allocator<T> uses unless told otherwise: on the process's budget, without waiting. Never destroyed, so
  // that it serves static objects too, from their constructors to their destructors.
  static memory_resource& process() noexcept;

  // What `allocate` of the base class does: memory that is not zeroed; for 0 bytes as for the least. Throws
  // std::bad_alloc if the budget has no room (or never can have, if it waits), if the system has no memory, or if the
  // alignment is no power of two. May run reclaimers. Inside a reclaimer it neither reclaims nor makes the cache of a
  // class that has none yet, it throws; one that waits dies there, where it would have to wait.
  //
  // `deallocate` takes back what this resource gave for that size and alignment, from any thread; never fails. Dies on
  // proven misuse, as raw_cache::put does.

  // Gives empty slabs back, the largest classes' first, until `wanted` is released; returns what was. The budget's
  // reclaim and the keeper do that by themselves.
  bytes trim(bytes wanted = unlimited);

  statistics stats() const;
  // The cache that serves such requests; null if a span does, or if none has been made yet.
  const raw_cache* cache_for(std::size_t size, std::size_t alignment) const;
  raw_cache* cache_for(std::size_t size, std::size_t alignment);
  // Audits every cache, and dies if counts of spans do not fit. No other call may run meanwhile (the keeper may).
  void audit() const;
  const std::string& name() const;
  memory_budget& budget() const;

 private:
  template <typename T>
  friend class allocator;
  struct state;

  // An object of a class, and back.
  void* take(std::size_t number) {
    // Acquire: the partner of the publication in make_cache.
    raw_cache* cache = caches_[number].load(std::memory_order_acquire);
    if (cache != nullptr && !waits_) [[likely]] {
      if (void* object = cache->try_get()) [[likely]]
        return object;
    }
    return take_below(number);
  }
  void give(std::size_t number, void* object) {
    // Relaxed: the object came from this cache to the caller, and its publication with it.
    raw_cache* cache = caches_[number].load(std::memory_order_relaxed);
    if (cache == nullptr) [[unlikely]]
      die_of_foreign(object);
    cache->put(object);
  }
  void* take_below(std::size_t number);
  raw_cache& cache_or_make(std::size_t number);
  raw_cache* make_cache(std::size_t number);
  [[noreturn]] void die_of_foreign(const void* object) const;

  void* take_bytes(std::size_t size, std::size_t alignment);
  void give_bytes(void* memory, std::size_t size, std::size_t alignment);
  void* map_span(std::size_t size, std::size_t alignment);
  void unmap_span(void* memory, std::size_t size);

  void* do_allocate(std::size_t size, std::size_t alignment) override;
  void do_deallocate(void* memory, std::size_t size, std::size_t alignment) override;
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override;

  std::array<std::atomic<raw_cache*>, size_classes::count> caches_{};  // each set once
  const bool waits_;
  const std::unique_ptr<state> state_;
};

}  // namespace larder

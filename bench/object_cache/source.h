// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

#if __has_include(<boost/pool/pool.hpp>)
#include <boost/pool/pool.hpp>
#define LARDER_BENCH_BOOST_POOL 1
#else
#define LARDER_BENCH_BOOST_POOL 0
#endif

#include <larder/object_cache.h>

#include "bench/object_cache/scenario.h"

namespace larder::bench {

template <std::size_t Size>
struct plain {
  std::array<std::uint64_t, Size / 8> words{};
};

// Takes a microsecond to build, like what opens a file, maps memory or fills a table.
struct costly {
  static constexpr bool built_by_everyone = true;

  costly() {
    const auto done = std::chrono::steady_clock::now() + std::chrono::microseconds(1);
    while (std::chrono::steady_clock::now() < done) use(this);
  }
  ~costly() { use(this); }
  costly(const costly&) = delete;
  costly& operator=(const costly&) = delete;

  std::array<std::uint64_t, 8> words{};
};

// Whether a source of raw memory builds the object too. Not the plain ones: that favours it.
template <typename Object>
constexpr bool built_by_everyone = requires {
  Object::built_by_everyone;
};

// What every source has; a source hides what it does otherwise.
struct source {
  explicit source(const demand&) {}
  source(const source&) = delete;
  source& operator=(const source&) = delete;

  // Whether there can be but one at a time.
  static constexpr bool is_only_one = false;

  // A thread that did not create the source begins and ends to use it.
  void enter() {}
  void leave() {}
  void tell(answer&) const {}
  double charged_bytes() const { return 0; }
};

template <typename Object>
class from_larder : public source {
 public:
  using source::source;
  void* get() { return cache_.get(); }
  void put(void* object) { cache_.put(static_cast<Object*>(object)); }
  void tell(answer& told) const {
    told.figures.emplace_back("objects_cached", static_cast<double>(cache_.stats().objects_cached));
  }
  double charged_bytes() const { return static_cast<double>(cache_.stats().charged.count); }

 private:
  object_cache<Object> cache_{"bench"};
};

// Objects in raw memory of a source's; what is common to those that know nothing of objects.
template <typename Object, typename Memory>
class built_in : public source {
 public:
  explicit built_in(const demand& needed) : source(needed) {}
  void* get() {
    void* memory = memory_.get();
    if constexpr (built_by_everyone<Object>) ::new (memory) Object();
    return memory;
  }
  void put(void* object) {
    if constexpr (built_by_everyone<Object>) static_cast<Object*>(object)->~Object();
    memory_.put(object);
  }

 private:
  Memory memory_;
};

template <std::size_t Size>
struct malloc_memory {
  void* get() { return std::malloc(Size); }
  void put(void* memory) { std::free(memory); }
};
template <typename Object>
using from_malloc = built_in<Object, malloc_memory<sizeof(Object)>>;

#if LARDER_BENCH_BOOST_POOL
// A pool of Boost's, and the mutex without which threads could not use it. (boost::object_pool keeps its free list
// sorted, so that a put takes as long as the list.)
template <std::size_t Size>
class boost_memory {
 public:
  void* get() {
    const std::lock_guard<std::mutex> locked(guard_);
    return pool_.malloc();
  }
  void put(void* memory) {
    const std::lock_guard<std::mutex> locked(guard_);
    pool_.free(memory);
  }

 private:
  std::mutex guard_;
  boost::pool<> pool_{Size};
};
template <typename Object>
using from_boost_pool = built_in<Object, boost_memory<sizeof(Object)>>;
#endif

// Nothing is got or put: what remains of passing objects to a thread is the ring.
template <typename Object>
class ring_alone : public source {
 public:
  using source::source;
  void* get() { return &only_; }
  void put(void* object) { use(object); }

 private:
  std::array<char, sizeof(Object)> only_;
};

}  // namespace larder::bench

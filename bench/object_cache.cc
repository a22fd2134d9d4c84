// SPDX-License-Identifier: Apache-2.0
//
// What a constructed object from an object_cache costs beside raw memory from malloc: each benchmark runs with both,
// for 64-byte objects. malloc's figure lacks the construction of the object. Time is per get and put.
#include <array>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/object_cache.h>

#include "base/atomic.h"

namespace {

struct object {
  std::array<std::uint64_t, 8> words{};
};

struct from_cache {
  object* get() { return cache.get(); }
  void put(object* one) { cache.put(one); }
  larder::object_cache<object> cache{"bench"};
};

struct from_malloc {
  object* get() { return static_cast<object*>(std::malloc(sizeof(object))); }
  void put(object* one) { std::free(one); }
};

template <typename Source>
void same_thread(benchmark::State& state) {
  Source source;
  for (auto _ : state) {
    object* one = source.get();
    benchmark::DoNotOptimize(one);
    source.put(one);
  }
}

template <typename Source>
void out_then_in(benchmark::State& state) {
  Source source;
  std::vector<object*> out(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    for (object*& one : out) one = source.get();
    for (object* one : out) source.put(one);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

template <typename Source>
void random_lifetimes(benchmark::State& state) {
  Source source;
  std::vector<object*> out(static_cast<std::size_t>(state.range(0)));
  for (object*& one : out) one = source.get();
  std::vector<std::uint32_t> order(1 << 16);
  std::mt19937 random(1);
  for (std::uint32_t& slot : order) slot = static_cast<std::uint32_t>(random() % out.size());
  std::size_t next = 0;
  for (auto _ : state) {
    object*& one = out[order[next++ % order.size()]];
    source.put(one);
    one = source.get();
  }
  for (object* one : out) source.put(one);
}

// One thread gets, another puts what it was sent through a ring.
template <typename Source>
void thread_to_thread(benchmark::State& state) {
  constexpr std::size_t slots = 1024;
  Source source;
  const auto ring = std::make_unique<std::array<larder::base::atomic<object*>, slots>>();
  larder::base::atomic<bool> stop{false};
  std::thread consumer([&] {
    for (std::size_t at = 0;; ++at) {
      auto& slot = (*ring)[at % slots];
      object* one = nullptr;
      while ((one = slot.load(larder::base::memory_order_acquire)) == nullptr) {  // partner: the producer's store
        if (stop) return;
      }
      slot.store(nullptr, larder::base::memory_order_release);  // partner: the producer's load
      source.put(one);
    }
  });
  std::size_t at = 0;
  for (auto _ : state) {
    auto& slot = (*ring)[at++ % slots];
    while (slot.load(larder::base::memory_order_acquire) != nullptr) {
    }
    slot.store(source.get(), larder::base::memory_order_release);
  }
  stop = true;
  consumer.join();
  for (auto& slot : *ring) {
    if (object* left = slot.exchange(nullptr)) source.put(left);
  }
}

BENCHMARK(same_thread<from_malloc>);
BENCHMARK(same_thread<from_cache>);
BENCHMARK(out_then_in<from_malloc>)->Arg(1000);
BENCHMARK(out_then_in<from_cache>)->Arg(1000);
BENCHMARK(random_lifetimes<from_malloc>)->Arg(10'000);
BENCHMARK(random_lifetimes<from_cache>)->Arg(10'000);
BENCHMARK(thread_to_thread<from_malloc>)->UseRealTime();
BENCHMARK(thread_to_thread<from_cache>)->UseRealTime();

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "cache/cpu_cache.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::cache {
namespace {

// Stays on one CPU, so that each operation finds the same array.
class CpuCacheTest : public testing::Test {
 protected:
  CpuCacheTest() {
    ::sched_getaffinity(0, sizeof before, &before);
    stay_on(os::current_cpu());
  }
  ~CpuCacheTest() override { ::sched_setaffinity(0, sizeof before, &before); }

  static void stay_on(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(static_cast<std::size_t>(cpu), &only);
    ASSERT_EQ(::sched_setaffinity(0, sizeof only, &only), 0);
  }

  memory_budget budget{"test"};
  int objects[300] = {};
  cpu_set_t before{};
};

TEST_F(CpuCacheTest, PopsWhatWasPushedLast) {
  cpu_cache cpus(budget, 10);
  EXPECT_EQ(cpus.pop(), nullptr);
  EXPECT_FALSE(cpus.push(&objects[0]));  // no array yet
  EXPECT_TRUE(cpus.make_array());
  EXPECT_TRUE(cpus.push(&objects[0]));
  EXPECT_TRUE(cpus.push(&objects[1]));
  EXPECT_EQ(cpus.pop(), &objects[1]);
  EXPECT_EQ(cpus.pop(), &objects[0]);
  EXPECT_EQ(cpus.pop(), nullptr);
}

TEST_F(CpuCacheTest, HoldsItsCapacityExactly) {
  for (std::size_t capacity = 0; capacity <= 124; ++capacity) {
    cpu_cache cpus(budget, capacity);
    EXPECT_EQ(cpus.make_array(), capacity > 0);
    std::size_t pushed = 0;
    while (cpus.push(&objects[pushed])) ++pushed;
    EXPECT_EQ(pushed, capacity);
    EXPECT_EQ(cpus.sum().cached, capacity);
    while (pushed > 0) EXPECT_EQ(cpus.pop(), &objects[--pushed]);
    EXPECT_EQ(cpus.pop(), nullptr);
  }
}

TEST_F(CpuCacheTest, FlushTakesTheOlderHalf) {
  cpu_cache cpus(budget, 5);
  ASSERT_TRUE(cpus.make_array());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(cpus.push(&objects[i]));
  void* batch[cpu_cache::batch_max];
  ASSERT_EQ(cpus.flush(batch), 3U);
  EXPECT_EQ(batch[0], &objects[0]);
  EXPECT_EQ(batch[2], &objects[2]);
  EXPECT_EQ(cpus.pop(), &objects[4]);
  EXPECT_EQ(cpus.pop(), &objects[3]);
  EXPECT_EQ(cpus.flush(batch), 0U);
}

TEST_F(CpuCacheTest, RefillAndManyMoveWhatFits) {
  cpu_cache cpus(budget, 5);
  void* some[10];
  for (int i = 0; i < 10; ++i) some[i] = &objects[i];
  EXPECT_EQ(cpus.refill(some, 3), 0U);  // no array yet
  ASSERT_TRUE(cpus.make_array());
  EXPECT_EQ(cpus.push_many(some, 3), 3U);
  EXPECT_EQ(cpus.refill(some + 3, 7), 2U);
  EXPECT_EQ(cpus.push_many(some, 1), 0U);
  void* got[10];
  EXPECT_EQ(cpus.pop_many(got, 10), 5U);
  EXPECT_EQ(got[0], &objects[4]);
  const cpu_cache::figures sum = cpus.sum();
  EXPECT_EQ(sum.puts, 3U);  // what users did; moves between layers are not counted
  EXPECT_EQ(sum.gets, 5U);
}

// KF-13: the affinity mask changes while objects are cached.
TEST_F(CpuCacheTest, CollectsFromEveryCpu) {
  cpu_cache cpus(budget, 10);
  std::vector<int> usable;
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &before)) usable.push_back(cpu);
  }
  int next = 0;
  for (const int cpu : usable) {
    stay_on(cpu);
    ASSERT_TRUE(cpus.make_array());
    ASSERT_TRUE(cpus.push(&objects[next++]));
  }
  EXPECT_EQ(cpus.sum().cached, usable.size());
  std::vector<void*> found;
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    void* batch[4];
    const std::size_t count = cpus.collect_from(cpu, batch, 4);
    found.insert(found.end(), batch, batch + count);
  }
  std::sort(found.begin(), found.end());
  ASSERT_EQ(found.size(), usable.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], &objects[i]);
}

TEST_F(CpuCacheTest, ArraysAreChargedWhenTheyAreMade) {
  {
    cpu_cache cpus(budget, 124);
    EXPECT_EQ(cpus.pop(), nullptr);
    EXPECT_EQ(budget.used(), bytes{});
    EXPECT_TRUE(cpus.make_array());
    EXPECT_TRUE(cpus.make_array());
    EXPECT_EQ(budget.used(), 4_KiB);
    EXPECT_EQ(cpus.sum().charged, 4_KiB);
  }
  EXPECT_EQ(budget.used(), bytes{});
}

// KF-48
TEST_F(CpuCacheTest, WithoutMemoryThereIsNoArray) {
  memory_budget full("full", {.limit = 4_KiB}, &budget);
  cpu_cache cpus(full, 10);
  ASSERT_TRUE(full.try_charge(1_KiB));
  EXPECT_FALSE(cpus.make_array());
  full.release(1_KiB);
  os::fault::arm(os::call::map, 1, ENOMEM);
  EXPECT_FALSE(cpus.make_array());
  os::fault::disarm();
  EXPECT_EQ(full.used(), bytes{});
  EXPECT_FALSE(cpus.push(&objects[0]));
  EXPECT_TRUE(cpus.make_array());
  EXPECT_TRUE(cpus.push(&objects[0]));
}

TEST_F(CpuCacheTest, CapacityFallsWithTheSizeOfObjects) {
  EXPECT_EQ(cpu_cache::capacity_for(64), 124U);
  EXPECT_EQ(cpu_cache::capacity_for(16 << 10), 4U);
  EXPECT_EQ(cpu_cache::capacity_for(64 << 10), 1U);
  EXPECT_EQ(cpu_cache::capacity_for((64 << 10) + 1), 0U);
}

TEST_F(CpuCacheTest, EachObjectIsPoppedOnceByManyThreadsAndACollector) {
  constexpr std::size_t count = 100;
  cpu_cache cpus(budget, 124);
  std::vector<base::atomic<int>> owners(count);
  std::vector<std::thread> threads;
  ::sched_setaffinity(0, sizeof before, &before);
  ASSERT_TRUE(cpus.make_array());  // four CPUs share a page of arrays
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<std::size_t> held;
      for (std::size_t i = thread; i < count; i += 4) held.push_back(i);
      for (std::size_t i : held) owners[i] = 1;
      const auto take = [&](void* object) {
        const auto index = static_cast<std::size_t>(static_cast<int*>(object) - objects);
        ASSERT_EQ(owners[index].exchange(1), 0) << "popped twice";
        held.push_back(index);
      };
      for (int round = 0; round < 20'000; ++round) {
        if (round % 3 != 0 && !held.empty()) {
          const std::size_t index = held.back();
          owners[index] = 0;
          if (cpus.push(&objects[index])) {
            held.pop_back();
          } else {
            owners[index] = 1;
          }
        } else if (void* object = cpus.pop()) {
          take(object);
        }
        if (round % 100 == 0) {
          void* batch[8];
          const std::size_t collected = cpus.collect_from(round / 100 % cpus.cpus(), batch, 8);
          for (std::size_t i = 0; i < collected; ++i) take(batch[i]);
        }
      }
      for (std::size_t index : held) owners[index] = 2;
    });
  }
  for (std::thread& each : threads) each.join();
  const auto kept = static_cast<std::size_t>(
      std::count_if(owners.begin(), owners.end(), [](const auto& owner) { return owner == 2; }));
  EXPECT_EQ(cpus.sum().cached + kept, count);
}

}  // namespace
}  // namespace larder::cache

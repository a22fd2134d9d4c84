// SPDX-License-Identifier: Apache-2.0
#include "cache/cpu_cache.h"

#include <linux/rseq.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/mutex.h"
#include "os/cpu.h"
#include "os/fault.h"
#include "tests/support/one_cpu.h"

namespace larder::cache {
namespace {

// Stays on one CPU, so that each operation finds the same array.
class CpuCacheTest : public testing::Test {
 protected:
  const tests::stays_on_one_cpu pinned;
  memory_budget budget{"test"};
  int objects[300] = {};
};

// A layer that holds so many, and the front that inlined code would look at.
struct layer : detail::cpu_front, cpu_cache {
  layer(memory_budget& budget, std::size_t capacity, inlined allowed = {})
      : cpu_cache(budget, *this, allowed, 8, capacity) {}
};

TEST_F(CpuCacheTest, PopsWhatWasPushedLast) {
  layer cpus(budget, 10);
  EXPECT_EQ(cpus.pop(), nullptr);
  EXPECT_FALSE(cpus.push(&objects[0]));  // no array yet
  EXPECT_TRUE(cpus.make_array());
  EXPECT_TRUE(cpus.push(&objects[0]));
  EXPECT_TRUE(cpus.push(&objects[1]));
  EXPECT_EQ(cpus.pop(), &objects[1]);
  EXPECT_EQ(cpus.pop(), &objects[0]);
  EXPECT_EQ(cpus.pop(), nullptr);
}

// In either mode, and whatever is allowed: what inlined code may not do, it refuses.
TEST_F(CpuCacheTest, InlinedCodeReachesTheArrayWhereItMay) {
  const bool sequences = os::sequences() != os::sequence_mode::sharded;
  for (const cpu_cache::inlined allowed : {cpu_cache::inlined{true, true}, {true, false}, {false, true}}) {
    layer cpus(budget, 10, allowed);
    ASSERT_TRUE(cpus.make_array());
    ASSERT_TRUE(cpus.push(&objects[0]));
    EXPECT_EQ(detail::push_cached(cpus, &objects[1]), sequences && allowed.push);
    const std::size_t cached = sequences && allowed.push ? 2 : 1;
    EXPECT_EQ(cpus.sum().cached, cached);
    EXPECT_EQ(detail::pop_cached(cpus), sequences && allowed.pop ? &objects[cached - 1] : nullptr);
    cpus.close();
    EXPECT_EQ(detail::pop_cached(cpus), nullptr);
    EXPECT_FALSE(detail::push_cached(cpus, &objects[2]));
    void* rest[4];
    for (int cpu = 0; cpu < cpus.cpus(); ++cpu) cpus.take_from(cpu, rest, 4);
  }
}

TEST_F(CpuCacheTest, HoldsItsCapacityExactly) {
  for (std::size_t capacity = 0; capacity <= 126; ++capacity) {
    layer cpus(budget, capacity);
    EXPECT_EQ(cpus.make_array(), capacity > 0);
    std::size_t pushed = 0;
    while (cpus.push(&objects[pushed])) ++pushed;
    EXPECT_EQ(pushed, capacity);
    EXPECT_EQ(cpus.sum().cached, capacity);
    cpus.audit("test");
    while (pushed > 0) EXPECT_EQ(cpus.pop(), &objects[--pushed]);
    EXPECT_EQ(cpus.pop(), nullptr);
  }
}

TEST_F(CpuCacheTest, ManyMoveInOrderAndCountWhatUsersDid) {
  layer cpus(budget, 5);
  void* some[10];
  for (int i = 0; i < 10; ++i) some[i] = &objects[i];
  EXPECT_EQ(cpus.refill(some, 3), 0U);  // no array yet
  ASSERT_TRUE(cpus.make_array());
  EXPECT_EQ(cpus.push_many(some, 3), 3U);
  EXPECT_EQ(cpus.refill(some + 3, 7), 2U);
  EXPECT_EQ(cpus.push_many(some, 1), 0U);
  void* got[10];
  ASSERT_EQ(cpus.flush(got, 2), 2U);
  EXPECT_EQ(got[0], &objects[3]);
  EXPECT_EQ(got[1], &objects[4]);
  EXPECT_EQ(cpus.pop_many(got, 10), 3U);
  EXPECT_EQ(got[0], &objects[0]);
  EXPECT_EQ(got[2], &objects[2]);
  EXPECT_EQ(cpus.pop_many(got, 10), 0U);
  const cpu_cache::figures sum = cpus.sum();
  EXPECT_EQ(sum.puts, 3U);  // moves between layers are not counted
  EXPECT_EQ(sum.gets, 3U);
}

// KF-13: the affinity mask changes while objects are cached.
TEST_F(CpuCacheTest, WhatIsCachedAnywhereIsTakenWhileClosed) {
  layer cpus(budget, 10);
  int next = 0;
  for (const int cpu : tests::allowed_cpus(pinned.before())) {
    tests::stay_on(cpu);
    ASSERT_TRUE(cpus.make_array());
    ASSERT_TRUE(cpus.push(&objects[next++]));
  }
  EXPECT_FALSE(cpus.was_empty());
  cpus.close();
  EXPECT_EQ(cpus.pop(), nullptr);
  EXPECT_FALSE(cpus.push(&objects[next]));
  std::vector<void*> found;
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    void* batch[4];
    const std::size_t count = cpus.take_from(cpu, batch, 4);
    found.insert(found.end(), batch, batch + count);
  }
  EXPECT_TRUE(cpus.was_empty());
  std::sort(found.begin(), found.end());
  ASSERT_EQ(found.size(), static_cast<std::size_t>(next));
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], &objects[i]);
}

TEST_F(CpuCacheTest, HeldPushesGoBelowAndPopsGoOn) {
  layer cpus(budget, 10);
  ASSERT_TRUE(cpus.make_array());
  ASSERT_TRUE(cpus.push(&objects[0]));
  cpus.close();
  cpus.open(true);
  EXPECT_TRUE(cpus.pushes_held());
  EXPECT_FALSE(cpus.push(&objects[1]));
  EXPECT_EQ(cpus.pop(), &objects[0]);
  cpus.open(false);
  EXPECT_TRUE(cpus.push(&objects[1]));
  EXPECT_EQ(cpus.pop(), &objects[1]);
}

TEST_F(CpuCacheTest, ArraysAreChargedWhenTheyAreMade) {
  {
    layer cpus(budget, 124);
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
  layer cpus(full, 10);
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
  EXPECT_EQ(cpus.pop(), &objects[0]);
}

void miss_often(cpu_cache& cpus) {
  for (int pair = 0; pair < 100; ++pair) {
    cpus.note_miss(cpu_cache::miss::full);
    cpus.note_miss(cpu_cache::miss::empty);
  }
}

std::size_t fill(layer& cpus, int* objects) {
  std::size_t pushed = 0;
  while (cpus.push(&objects[pushed])) ++pushed;
  return pushed;
}

// What it may hold grows with the misses, and never past its most; what it holds survives the move to a larger array.
TEST_F(CpuCacheTest, AnArrayThatMissesGrowsToItsMost) {
  constexpr std::size_t most = 700;
  std::vector<int> many(most + 1);
  layer cpus(budget, most);
  ASSERT_TRUE(cpus.make_array());
  std::size_t held = fill(cpus, many.data());
  EXPECT_EQ(held, 126U);
  const bool grows = os::sequences() != os::sequence_mode::sharded;
  for (int full = 0; full < 40; ++full) cpus.note_miss(cpu_cache::miss::full);
  EXPECT_EQ(cpus.sum().charged, 4_KiB);  // room would not help who only fills it
  for (int empty = 0; empty < 16; ++empty) {
    cpus.note_miss(cpu_cache::miss::empty);
    cpus.audit("test");
    while (cpus.push(&many[held])) ++held;
  }
  EXPECT_EQ(held, grows ? most : 126U);
  EXPECT_EQ(cpus.sum().cached, held);
  EXPECT_EQ(cpus.sum().puts, held);
  EXPECT_EQ(cpus.move_length(), grows ? 244U : 63U);
  EXPECT_EQ(budget.used(), grows ? 16_KiB : 4_KiB);
  while (held > 0) EXPECT_EQ(cpus.pop(), &many[--held]);
}

// KF-15, KF-20
TEST_F(CpuCacheTest, NoArrayGrowsWhereMemoryIsTight) {
  memory_budget tight("tight", {.limit = 64_KiB}, &budget);
  ASSERT_TRUE(tight.try_charge(50_KiB));
  layer cpus(tight, 700);
  ASSERT_TRUE(cpus.make_array());
  miss_often(cpus);
  EXPECT_EQ(cpus.sum().charged, 4_KiB);
  const std::size_t held = fill(cpus, objects);
  EXPECT_EQ(held, 126U);
  void* rest[200];
  EXPECT_EQ(cpus.pop_many(rest, 200), held);
  tight.release(50_KiB);
}

// KF-20: over all CPUs, 256 KiB of objects for each.
TEST_F(CpuCacheTest, AllArraysTogetherHaveALimit) {
  detail::cpu_front front;
  cpu_cache cpus(budget, front, {}, 4096, raw_cache::no_limit);
  ASSERT_TRUE(cpus.make_array());
  miss_often(cpus);
  cpus.audit("test");
  std::vector<int> many(3000);
  std::size_t held = 0;
  while (cpus.push(&many[held])) ++held;
  EXPECT_LE(held, 64U * static_cast<std::size_t>(cpus.cpus()));
  EXPECT_GE(held, 16U);
  while (cpus.pop() != nullptr) continue;
}

// The limit holds also where the first CPU had grown as far as it may before the others began.
TEST_F(CpuCacheTest, AnArrayLeavesTheOtherCpusTheirShare) {
  detail::cpu_front front;
  cpu_cache cpus(budget, front, {}, 15'360, raw_cache::no_limit);
  ASSERT_TRUE(cpus.make_array());
  miss_often(cpus);
  cpus.audit("test");
  cpu_set_t others = pinned.before();
  CPU_CLR(static_cast<std::size_t>(os::current_cpu()), &others);
  if (CPU_COUNT(&others) == 0) GTEST_SKIP() << "there is one CPU only";
  // Concurrency ids number who runs at once, so this thread must run on while the other does.
  std::atomic<bool> done{false};
  std::thread other([&] {
    EXPECT_EQ(::sched_setaffinity(0, sizeof others, &others), 0);
    EXPECT_TRUE(cpus.make_array());
    miss_often(cpus);
    done = true;
  });
  while (!done) continue;
  other.join();
  cpus.audit("test");
}

TEST_F(CpuCacheTest, CapacityFallsWithTheSizeOfObjects) {
  const auto capacity = [&](std::size_t length) {
    detail::cpu_front front;
    cpu_cache cpus(budget, front, {}, length, raw_cache::no_limit);
    std::size_t held = 0;
    if (cpus.make_array()) {
      while (cpus.push(&objects[held])) ++held;
      while (cpus.pop() != nullptr) continue;
    }
    return held;
  };
  EXPECT_EQ(capacity(64), 126U);
  EXPECT_EQ(capacity(16 << 10), 4U);
  EXPECT_EQ(capacity(64 << 10), 1U);
  EXPECT_EQ(capacity((64 << 10) + 1), 0U);
}

// KF-11
TEST_F(CpuCacheTest, AnArrayThatServedLittleInAPeriodIsIdleAndCanGo) {
  layer cpus(budget, 100);
  ASSERT_TRUE(cpus.make_array());
  ASSERT_TRUE(cpus.push(&objects[0]));
  EXPECT_TRUE(cpus.note_period());  // used, though only by a put
  EXPECT_FALSE(cpus.note_period());
  EXPECT_TRUE(cpus.any_idle());
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(cpus.pop(), &objects[0]);
    ASSERT_TRUE(cpus.push(&objects[0]));
  }
  EXPECT_TRUE(cpus.note_period());
  EXPECT_FALSE(cpus.any_idle());
  cpus.close();
  void* rest[2];
  for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
    cpus.take_from(cpu, rest, 2);
    cpus.drop_array(cpu);
  }
  cpus.audit("test");
  const cpu_cache::figures sum = cpus.sum();
  EXPECT_EQ(sum.gets, 2U);  // of arrays that are gone, too
  EXPECT_EQ(sum.puts, 3U);
  EXPECT_EQ(sum.cached, 0U);
  const bool goes = os::sequences() != os::sequence_mode::sharded;
  EXPECT_EQ(budget.used(), goes ? bytes{} : 4_KiB);
  cpus.open(false);
  EXPECT_TRUE(cpus.make_array());
  EXPECT_TRUE(cpus.push(&objects[0]));
  EXPECT_EQ(cpus.sum().gets, 2U);
  EXPECT_EQ(cpus.pop(), &objects[0]);
}

// A thread that the C library could not register goes below, always.
TEST_F(CpuCacheTest, AThreadWithoutSequencesIsRefused) {
  if (os::sequences() == os::sequence_mode::sharded) GTEST_SKIP() << "no sequences: " << os::sequences_description();
  layer cpus(budget, 10);
  ASSERT_TRUE(cpus.make_array());
  ASSERT_TRUE(cpus.push(&objects[0]));
  std::thread([&] {
    auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    ASSERT_EQ(::syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0);
    EXPECT_FALSE(cpus.make_array());
    EXPECT_EQ(cpus.pop(), nullptr);
    EXPECT_FALSE(cpus.push(&objects[1]));
    void* some[2] = {&objects[1], &objects[2]};
    EXPECT_EQ(cpus.push_many(some, 2), 0U);
    EXPECT_EQ(cpus.pop_many(some, 2), 0U);
    EXPECT_EQ(cpus.move_length(), 0U);
  }).join();
  EXPECT_EQ(cpus.sum().cached, 1U);
  EXPECT_EQ(cpus.pop(), &objects[0]);
}

TEST_F(CpuCacheTest, EachObjectIsPoppedOnceByManyThreadsAndACollector) {
  constexpr std::size_t count = 100;
  layer cpus(budget, 124);
  base::mutex below{base::lock_rank::cache_slabs};
  std::vector<base::atomic<int>> owners(count);
  std::vector<std::thread> threads;
  pinned.end();
  ASSERT_TRUE(cpus.make_array());
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
          const base::lock locked(below);
          cpus.close();
          const std::size_t collected = cpus.take_from(round / 100 % cpus.cpus(), batch, 8);
          cpus.open(round % 200 == 0);
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

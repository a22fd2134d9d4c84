// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>

#include "cache/object_census_test.h"

namespace larder {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

class CacheWaitTest : public testing::Test {
 protected:
  ~CacheWaitTest() override {
    EXPECT_EQ(census.built(), 0U);
    EXPECT_EQ(budget.used(), bytes{});
  }
  static void until_waiting(const raw_cache& cache, std::uint64_t count) {
    while (cache.stats().waiting != count) std::this_thread::sleep_for(100us);
  }

  memory_budget budget{"test"};
  object_census census;
};

TEST_F(CacheWaitTest, AtTheLimitGetWaitsForAPut) {
  for (const std::size_t size : {64U, 100'000U}) {
    raw_cache::options chosen = census.options_for(size, budget);
    chosen.limit = 1;
    raw_cache cache("one", chosen);
    void* only = cache.try_get();
    void* received = nullptr;
    std::thread waiter([&] {
      received = *cache.get();
      cache.put(received);
    });
    until_waiting(cache, 1);
    cache.put(only);
    waiter.join();
    EXPECT_EQ(received, only);
    EXPECT_EQ(cache.stats().waits, 1U);
    cache.audit();
  }
}

TEST_F(CacheWaitTest, GetGivesUpAtItsDeadline) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 1;
  raw_cache cache("one", chosen);
  void* only = cache.try_get();
  const time_point start = steady_clock::now();
  EXPECT_EQ(cache.get(start + 20ms).error(), error_from(ETIMEDOUT));
  EXPECT_GE(steady_clock::now(), start + 20ms);
  EXPECT_EQ(cache.stats().waiting, 0U);
  cache.audit();
  cache.put(only);
}

TEST_F(CacheWaitTest, PutsServeGettersInTheOrderOfTheirComing) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 2;
  raw_cache cache("two", chosen);
  void* first = cache.try_get();
  void* second = cache.try_get();
  constexpr int getters = 6;
  std::mutex guard;
  std::vector<int> order;
  std::vector<std::thread> threads;
  for (int i = 0; i < getters; ++i) {
    threads.emplace_back([&, i] {
      void* object = *cache.get();
      {
        const std::lock_guard<std::mutex> locked(guard);
        order.push_back(i);
      }
      cache.put(object);
    });
    until_waiting(cache, static_cast<std::uint64_t>(i) + 1);
  }
  cache.put(first);  // each getter puts it back for the next
  for (std::thread& each : threads) each.join();
  cache.put(second);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  cache.audit();
}

TEST_F(CacheWaitTest, WhatIsPutBelongsToTheOldestGetterAtOnce) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 1;
  raw_cache cache("one", chosen);
  void* only = cache.try_get();
  base::atomic<bool> may_put{false};
  std::thread waiter([&] {
    void* object = *cache.get();
    while (!may_put) std::this_thread::yield();
    cache.put(object);
  });
  until_waiting(cache, 1);
  cache.put(only);
  EXPECT_EQ(cache.try_get(), nullptr);
  EXPECT_EQ(cache.stats().waiting, 0U);
  may_put = true;
  waiter.join();
}

// A getter that waits for memory gets it, and while it constructs its object another is handed to it.
TEST_F(CacheWaitTest, AnObjectHandedToAGetterThatHasOneGoesBack) {
  struct gate {
    base::atomic<bool> closed{false};
    base::atomic<bool> reached{false};
  } door;
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  raw_cache::options chosen;
  chosen.size = 100'000;
  chosen.budget = &own;
  chosen.context = &door;
  chosen.construct = [](void*, void* context) -> result<void> {
    auto& at = *static_cast<gate*>(context);
    at.reached = true;
    while (at.closed) std::this_thread::yield();
    return {};
  };
  raw_cache cache("both", chosen);
  void* first = cache.try_get();
  const bytes rest = own.limit() - own.used();
  ASSERT_TRUE(own.try_charge(rest));
  door.closed = true;
  door.reached = false;
  void* received = nullptr;
  std::thread waiter([&] { received = *cache.get(); });
  while (own.waits() == 0) std::this_thread::sleep_for(100us);
  own.release(rest);
  while (!door.reached) std::this_thread::sleep_for(100us);
  cache.put(first);
  door.closed = false;
  waiter.join();
  EXPECT_NE(received, first);
  EXPECT_EQ(cache.stats().objects_out, 1U);
  cache.audit();
  EXPECT_EQ(cache.try_get(), first);
  cache.put(first);
  cache.put(received);
}

TEST_F(CacheWaitTest, GetWaitsForMemoryThatSomebodyReleases) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  raw_cache cache("waits", census.options_for(64, own));
  const bytes rest = own.limit() - own.used();
  ASSERT_TRUE(own.try_charge(rest));
  void* received = nullptr;
  std::thread waiter([&] { received = *cache.get(); });
  while (own.waits() == 0) std::this_thread::sleep_for(100us);
  own.release(rest);
  waiter.join();
  ASSERT_NE(received, nullptr);
  cache.put(received);
  cache.audit();
}

TEST_F(CacheWaitTest, WhicheverComesFirstServesAGetterThatLacksMemory) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  raw_cache cache("waits", census.options_for(100'000, own));
  void* only = cache.try_get();
  ASSERT_NE(only, nullptr);
  const bytes rest = own.limit() - own.used();
  ASSERT_TRUE(own.try_charge(rest));
  void* received = nullptr;
  std::thread waiter([&] { received = *cache.get(); });
  while (own.waits() == 0) std::this_thread::sleep_for(100us);
  cache.put(only);
  waiter.join();
  EXPECT_EQ(received, only);
  EXPECT_FALSE(own.has_waiters());
  EXPECT_EQ(own.used(), own.limit());
  cache.put(received);
  own.release(rest);
}

TEST_F(CacheWaitTest, ASlabThatCanNeverFitIsNoReasonToFailWhileAnObjectIsOut) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  memory_budget narrow("narrow", {.limit = 150'000_B}, &own);
  raw_cache cache("waits", census.options_for(100'000, narrow));
  void* only = cache.try_get();
  ASSERT_NE(only, nullptr);
  void* received = nullptr;
  std::thread waiter([&] { received = *cache.get(); });
  until_waiting(cache, 1);
  cache.put(only);
  waiter.join();
  cache.put(received);
}

TEST_F(CacheWaitTest, OneSlabServesAllThatItHasRoomFor) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  raw_cache::options chosen = census.options_for(20 << 10, own);
  chosen.alignment = page_size;
  raw_cache cache("stacks", chosen);
  const bytes rest = own.limit() - own.used();
  ASSERT_TRUE(own.try_charge(rest));
  std::vector<std::thread> threads;
  base::atomic<int> served{0};
  std::vector<void*> received(3);
  for (std::size_t i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      received[i] = *cache.get();
      ++served;
    });
  }
  until_waiting(cache, 3);
  own.release(cache.stats().slab_bytes);
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(cache.stats().objects_out, 3U);
  EXPECT_EQ(cache.stats().slabs_full, 1U);
  for (void* object : received) cache.put(object);
  own.release(rest - cache.stats().slab_bytes);
}

TEST_F(CacheWaitTest, AFailedConstructionLetsTheNextGetterTry) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 1;
  raw_cache cache("fails", chosen);
  for (int round = 0; round < 50; ++round) {
    void* only = cache.try_get();
    ASSERT_NE(only, nullptr);
    std::vector<std::thread> threads;
    base::atomic<int> served{0};
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        if (const result<void*> object = cache.get()) {
          ++served;
          cache.put(*object);
        }
      });
    }
    cache.put(only);
    cache.trim();  // the next one must be built
    census.fail_after(0);
    for (std::thread& each : threads) each.join();
    EXPECT_GE(served, 2);
    census.fail_after(-1);
    cache.audit();
  }
}

TEST_F(CacheWaitTest, GettersThatGiveUpLeaveNothingBehind) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 2;
  raw_cache cache("hurried", chosen);
  std::vector<std::thread> threads;
  base::atomic<std::uint64_t> served{0};
  for (unsigned thread = 0; thread < 6; ++thread) {
    threads.emplace_back([&, thread] {
      for (int round = 0; round < 300; ++round) {
        const result<void*> object = cache.get(steady_clock::now() + std::chrono::microseconds(50 * (thread + 1)));
        if (!object) {
          EXPECT_EQ(object.error(), error_from(ETIMEDOUT));
          continue;
        }
        census.check_contents(*object);
        if (round % 4 == 0) std::this_thread::sleep_for(100us);
        ++served;
        cache.put(*object);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_GT(served, 0U);
  EXPECT_EQ(cache.stats().waiting, 0U);
  EXPECT_EQ(cache.stats().objects_out, 0U);
  cache.audit();
}

// Progress under contention: every get of every thread succeeds, though memory or the limit covers a few at a time.
TEST_F(CacheWaitTest, ManyMoreGettersThanObjectsAllGetTheirTurn) {
  for (const bool by_limit : {true, false}) {
    memory_budget own("own", {.limit = by_limit ? unlimited : 240_KiB}, &budget);
    raw_cache::options chosen = census.options_for(30'000, own);
    chosen.limit = by_limit ? 3 : raw_cache::no_limit;
    raw_cache cache("scarce", chosen);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 8; ++thread) {
      threads.emplace_back([&] {
        for (int round = 0; round < 300; ++round) {
          void* objects[1] = {*cache.get()};
          census.check_contents(objects[0]);
          if (round % 16 == 0) std::this_thread::yield();
          if (round % 64 == 0) cache.trim();
          cache.put(objects[0]);
        }
      });
    }
    for (std::thread& each : threads) each.join();
    cache.audit();
  }
}

// KF-57
TEST(CacheWaitDeathTest, AReclaimerThatWaitsForAnObjectDies) {
  struct waiting_reclaimer final : reclaimer {
    explicit waiting_reclaimer(raw_cache& of) : cache(of) {}
    bytes reclaim(bytes) override {
      (void)cache.get();
      return {};
    }
    raw_cache& cache;
  };
  memory_budget budget("test");
  raw_cache::options chosen;
  chosen.size = 64;
  chosen.limit = 1;
  chosen.budget = &budget;
  raw_cache cache("reclaimed", chosen);
  void* only = cache.try_get();
  waiting_reclaimer source(cache);
  budget.add_reclaimer(source, reclaim_stage::user);
  EXPECT_DEATH((void)budget.reclaim(1_MiB), "cache \"reclaimed\": a reclaimer waits for an object");
  budget.remove_reclaimer(source);
  cache.put(only);
}

}  // namespace
}  // namespace larder

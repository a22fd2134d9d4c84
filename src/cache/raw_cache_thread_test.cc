// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/object_cache.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "cache/object_census_test.h"

namespace larder {
namespace {

class RawCacheThreadTest : public testing::Test {
 protected:
  ~RawCacheThreadTest() override {
    EXPECT_EQ(census.built(), 0U);
    EXPECT_EQ(budget.used(), bytes{});
  }

  memory_budget budget{"test"};
  object_census census;
};

struct number {
  int value = 7;
};

// KF-3: used by the constructor of another static object, before main.
object_cache<number>& early_cache() {
  static object_cache<number> instance("early", {.reservation = 1});
  return instance;
}
const int before_main = [] {
  number* object = early_cache().get();
  const int value = object->value;
  early_cache().put(object);
  return value;
}();

TEST_F(RawCacheThreadTest, WorksInStaticConstructors) { EXPECT_EQ(before_main, 7); }

// KF-3
TEST_F(RawCacheThreadTest, FirstUseFromManyThreadsAtOnce) {
  for (int round = 0; round < 30; ++round) {
    raw_cache cache("fresh", census.options_for(64, budget));
    base::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        ++ready;
        while (ready < 4) std::this_thread::yield();
        void* object = cache.try_get();
        ASSERT_NE(object, nullptr);
        census.check_contents(object);
        cache.put(object);
      });
    }
    for (std::thread& each : threads) each.join();
    cache.audit();
  }
}

// KF-18: in the last destructors of a thread that never used the cache before.
TEST_F(RawCacheThreadTest, WorksInAThreadsLastDestructors) {
  raw_cache cache("late", census.options_for(64, budget));
  struct at_exit {
    raw_cache* cache = nullptr;
    ~at_exit() {
      if (cache == nullptr) return;
      void* object = cache->try_get();
      EXPECT_NE(object, nullptr);
      cache->put(object);
    }
  };
  std::thread([&] {
    thread_local at_exit last;
    last.cache = &cache;
  }).join();
  EXPECT_EQ(cache.stats().gets, 1U);
  cache.audit();
}

// KF-1, KF-6, KF-13: every kind of operation from every thread, on objects that nobody else may hold.
TEST_F(RawCacheThreadTest, NoObjectIsEverWithTwoUsers) {
  struct variant {
    std::size_t size, reservation, limit;
    bytes memory;
  };
  const variant variants[] = {
      {64, 0, raw_cache::no_limit, unlimited},
      {64, 10, 150, unlimited},
      {3000, 5, raw_cache::no_limit, 200_KiB},
      {20'000, 3, 12, unlimited},
      {100'000, 1, 6, 600'000_B},
  };
  for (const variant& each : variants) {
    SCOPED_TRACE(testing::Message() << "size " << each.size);
    memory_budget own("own", {.limit = each.memory}, &budget);
    raw_cache::options chosen = census.options_for(each.size, own);
    chosen.reservation = each.reservation;
    chosen.limit = each.limit;
    raw_cache cache("shared", chosen);
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < 6; ++thread) {
      threads.emplace_back([&, thread] {
        std::mt19937_64 random(thread);
        std::vector<void*> held;
        const auto hold = [&](void* object) {
          auto& owner = *static_cast<base::atomic<std::uint64_t>*>(static_cast<void*>(static_cast<char*>(object) + 8));
          ASSERT_EQ(owner.exchange(thread + 1), 0U) << "with two users";
          held.push_back(object);
        };
        const auto let_go = [&] {
          std::swap(held[random() % held.size()], held.back());
          void* object = held.back();
          held.pop_back();
          auto& owner = *static_cast<base::atomic<std::uint64_t>*>(static_cast<void*>(static_cast<char*>(object) + 8));
          EXPECT_EQ(owner.exchange(0), thread + 1);
          return object;
        };
        for (int step = 0; step < 4000; ++step) {
          const std::uint64_t what = random() % 100;
          if (what < 45 && held.size() < 100) {
            if (void* object = cache.try_get()) hold(object);
          } else if (what < 90 && !held.empty()) {
            cache.put(let_go());
          } else if (what < 94 && held.size() < 100) {
            void* some[10];
            const std::size_t got = cache.get_many(some, 10);
            for (std::size_t i = 0; i < got; ++i) hold(some[i]);
          } else if (what < 98) {
            std::vector<void*> some;
            while (!held.empty() && some.size() < 10) some.push_back(let_go());
            cache.put_many(some.data(), some.size());
          } else if (what < 99) {
            cache.trim(bytes{random() % 20'000});
          } else {
            (void)cache.stats();
          }
        }
        while (!held.empty()) cache.put(let_go());
      });
    }
    for (std::thread& thread : threads) thread.join();
    cache.audit();
    const raw_cache::statistics now = cache.stats();
    EXPECT_EQ(now.objects_out, 0U);
    EXPECT_GE(now.objects_built, each.reservation);
    EXPECT_LE(now.objects_built, each.limit);
  }
}

// KF-16: taken by one thread and put by another, for ever, the cache stays small.
TEST_F(RawCacheThreadTest, ProducerAndConsumerReuseTheSameObjects) {
  raw_cache cache("pipeline", census.options_for(64, budget));
  constexpr std::size_t depth = 100;
  std::mutex guard;
  std::condition_variable changed;
  std::deque<void*> pipe;  // guarded by guard
  constexpr int rounds = 100'000;
  std::thread consumer([&] {
    for (int round = 0; round < rounds; ++round) {
      void* object = nullptr;
      {
        std::unique_lock<std::mutex> locked(guard);
        changed.wait(locked, [&] { return !pipe.empty(); });
        object = pipe.front();
        pipe.pop_front();
      }
      changed.notify_all();
      cache.put(object);
    }
  });
  for (int round = 0; round < rounds; ++round) {
    void* object = *cache.get();
    {
      std::unique_lock<std::mutex> locked(guard);
      changed.wait(locked, [&] { return pipe.size() < depth; });
      pipe.push_back(object);
    }
    changed.notify_all();
  }
  consumer.join();
  // In the pipe, in the arrays of the CPUs that took part, and a slab's worth besides.
  EXPECT_LE(census.constructions(), depth + 2 + 2046U * std::thread::hardware_concurrency() + 62);
  cache.audit();
}

// KF-15: the budget asks for memory while others get, put and construct.
TEST_F(RawCacheThreadTest, ReclaimRunsBesideEverythingElse) {
  memory_budget own("own", {.limit = 400_KiB}, &budget);
  raw_cache small("small", census.options_for(1000, own));
  object_census large_census;
  raw_cache large("large", large_census.options_for(30'000, own));
  base::atomic<bool> stop{false};
  std::thread reclaimer([&] {
    while (!stop) {
      (void)own.reclaim(16_KiB);
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      raw_cache& cache = thread % 2 == 0 ? small : large;
      object_census& mine = thread % 2 == 0 ? census : large_census;
      for (int round = 0; round < 1500; ++round) {
        const result<void*> object = cache.get();
        ASSERT_TRUE(object);
        mine.check_contents(*object);
        cache.put(*object);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  stop = true;
  reclaimer.join();
  small.audit();
  large.audit();
}

}  // namespace
}  // namespace larder

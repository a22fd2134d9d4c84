// SPDX-License-Identifier: Apache-2.0
//
// The keeper with short periods: what an idle cache holds goes back, off every caller's path; what is in use stays.
#include "cache/keeper.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/object_cache.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/sanitizers.h"
#include "cache/object_census_test.h"
#include "os/cpu_sequence.h"
#include "os/fault.h"
#include "tests/support/eventually.h"
#include "tests/support/one_cpu.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

class KeeperTest : public testing::Test {
 protected:
  KeeperTest() { EXPECT_TRUE(configure_keeper({.period = period})); }
  ~KeeperTest() override {
    EXPECT_TRUE(configure_keeper({}));
    EXPECT_EQ(census.built(), 0U);
    EXPECT_EQ(budget.used(), bytes{});
  }

  static std::vector<void*> take(raw_cache& cache, std::size_t count) {
    std::vector<void*> objects(count);
    EXPECT_EQ(cache.get_many(objects.data(), count), count);
    return objects;
  }
  static void fill_and_empty(raw_cache& cache, std::size_t count) {
    const std::vector<void*> objects = take(cache, count);
    for (void* object : objects) cache.put(object);
  }

  static constexpr auto period = 20ms;
  memory_budget budget{"test"};
  object_census census;
};

// KF-11, KF-20: nobody calls it, and it is back at its reservation.
TEST_F(KeeperTest, AnIdleCacheReturnsToItsReservation) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.reservation = 100;
  raw_cache cache("idle", chosen);
  // Without sequences arrays stay: a page.
  const bytes at_rest = budget.used() + (os::sequences() == os::sequence_mode::sharded ? 4_KiB : bytes{});
  for (int round = 0; round < 3; ++round) {
    fill_and_empty(cache, 50'000);
    EXPECT_TRUE(tests::eventually([&] { return budget.used() <= at_rest; }));
    cache.audit();
    const raw_cache::statistics now = cache.stats();
    EXPECT_GE(now.objects_built, 100U);
    EXPECT_LE(now.objects_built, 100 + 2 * now.objects_per_slab);
    EXPECT_EQ(now.objects_cached, 0U);
    EXPECT_EQ(now.objects_in_depot, 0U);
  }
}

bytes resident() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t pages = 0;
  file >> size >> pages;
  return bytes{pages * page_size};
}

// KF-11, by what the system says.
TEST_F(KeeperTest, AMillionObjectsAreBackWithTheSystemWithinTwoPeriods) {
#if defined(LARDER_ADDRESS_SANITIZER) || defined(LARDER_THREAD_SANITIZER)
  GTEST_SKIP() << "a sanitizer's own memory is resident as well";
#endif
  constexpr std::size_t count = 1'000'000;
  constexpr auto long_period = 500ms;
  ASSERT_TRUE(configure_keeper({.period = long_period}));
  std::vector<void*> objects(count);
  raw_cache::options chosen;
  chosen.size = 64;
  chosen.budget = &budget;
  raw_cache cache("million", chosen);
  const bytes before = resident();
  ASSERT_EQ(cache.get_many(objects.data(), count), count);
  for (void* object : objects) *static_cast<int*>(object) = 1;
  ASSERT_GE(resident() - before, 60_MiB);
  cache.put_many(objects.data(), count);
  const auto begun = std::chrono::steady_clock::now();
  const auto at_rest = [&] { return resident() < before + 2_MiB && cache.stats().objects_built == 0; };
  EXPECT_TRUE(tests::eventually(at_rest));
  const auto taken = std::chrono::steady_clock::now() - begun;
  std::printf("%zu objects back within %.2f periods\n", count, std::chrono::duration<double>(taken) / long_period);
}

// The same for what only lies in the array of a CPU, which no slow path ever sees (KF-11).
TEST_F(KeeperTest, ObjectsThatWerePutAfterTheRestGoBackToo) {
  raw_cache cache("late", census.options_for(1000, budget));
  std::vector<void*> objects = take(cache, 20);
  for (int round = 0; round < 3; ++round) {
    // At rest, with objects out.
    EXPECT_TRUE(tests::eventually([&] { return cache.stats().slabs_empty == 0 && cache.stats().objects_cached == 0; }));
    std::this_thread::sleep_for(3 * period);
    for (void* object : objects) cache.put(object);
    EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built == 0; }));
    EXPECT_EQ(cache.stats().slabs_empty, 0U);
    objects = take(cache, 20);
  }
  for (void* object : objects) cache.put(object);
}

TEST_F(KeeperTest, ACacheInUseKeepsWhatItUses) {
  const tests::stays_on_one_cpu pinned;  // elsewhere it would want more
  EXPECT_TRUE(configure_keeper({.period = std::chrono::hours(1)}));
  raw_cache cache("busy", census.options_for(64, budget));
  fill_and_empty(cache, 1000);
  for (int round = 0; round < 20; ++round) {
    cache::keeper::of_process().round();
    cache.audit();
    fill_and_empty(cache, 1000);
  }
  // Whatever moved to where, nothing that was wanted again was destroyed.
  EXPECT_EQ(census.destructions(), 0U);
}

// What a burst left behind goes, while the cache is used on.
TEST_F(KeeperTest, ThePeakOfACacheInUseIsGivenBack) {
  raw_cache cache("fallen", census.options_for(64, budget));
  fill_and_empty(cache, 100'000);
  const bytes peak = budget.used();
  EXPECT_TRUE(tests::eventually([&] {
    fill_and_empty(cache, 10);
    return budget.used() < peak / 10;
  }));
  cache.audit();
}

// KF-10, KF-20
TEST_F(KeeperTest, AReservationThatRisesIsBuiltInTheBackground) {
  memory_budget small("small", {.limit = 1_MiB}, &budget);
  raw_cache cache("reserved", census.options_for(64, small));
  ASSERT_TRUE(cache.set_reservation(1000));
  EXPECT_EQ(cache.reservation(), 1000U);
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built >= 1000; }));
  EXPECT_EQ(cache.stats().gets, 0U);
  EXPECT_EQ(census.constructions(), 1000U);
  // They are there with the budget exhausted, and with a constructor that always fails.
  census.fail_always(true);
  const bytes rest = small.limit() - small.used();
  ASSERT_TRUE(small.try_charge(rest));
  for (void* object : take(cache, 1000)) cache.put(object);
  ASSERT_TRUE(cache.set_reservation(1100));
  std::this_thread::sleep_for(5 * period);  // no memory: it goes on trying
  EXPECT_LT(cache.stats().objects_built, 1100U);
  small.release(rest);
  std::this_thread::sleep_for(5 * period);  // the constructor fails
  EXPECT_LT(cache.stats().objects_built, 1100U);
  census.fail_always(false);
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built >= 1100; }));
  cache.audit();
  ASSERT_TRUE(cache.set_reservation(0));
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built == 0; }));
  cache.audit();
}

// What a round built before a constructor failed counts already: trim leaves it.
TEST_F(KeeperTest, APartOfARisenReservationIsReserved) {
  EXPECT_TRUE(configure_keeper({.period = std::chrono::hours(1)}));
  raw_cache cache("partial", census.options_for(64, budget));
  census.fail_after(5);
  ASSERT_TRUE(cache.set_reservation(10));
  cache::keeper::of_process().round();
  EXPECT_EQ(cache.stats().objects_built, 5U);
  cache.trim();
  EXPECT_EQ(cache.stats().objects_built, 5U);
  census.fail_always(true);
  for (void* object : take(cache, 5)) cache.put(object);
  cache.audit();
}

TEST_F(KeeperTest, AReservationAboveTheLimitIsRefused) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 10;
  raw_cache cache("limited", chosen);
  EXPECT_EQ(cache.set_reservation(11).error(), error_from(EINVAL));
  ASSERT_TRUE(cache.set_reservation(10));
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built == 10; }));
  for (void* object : take(cache, 10)) cache.put(object);
  cache.audit();
}

TEST_F(KeeperTest, ARoundIsBounded) {
  EXPECT_TRUE(configure_keeper({.period = std::chrono::hours(1), .objects_per_round = 1000}));
  raw_cache cache("bounded", census.options_for(64, budget));
  fill_and_empty(cache, 20'000);
  cache::keeper& keeper = cache::keeper::of_process();
  keeper.round();  // notes what was used
  std::size_t rounds = 0;
  std::uint64_t built = cache.stats().objects_built;
  while (built > 0 && rounds < 1000) {
    keeper.round();
    ++rounds;
    const std::uint64_t now = cache.stats().objects_built;
    EXPECT_LE(built - now, 1000 + cache.stats().objects_per_slab);
    cache.audit();
    built = now;
  }
  EXPECT_GE(rounds, 20U);
  EXPECT_LT(rounds, 1000U);
}

// KF-46
TEST_F(KeeperTest, SleepsWhileEveryCacheIsAtRest) {
  struct idle_probe final : cache::kept {
    bool keep(std::size_t) override {
      ++visits;
      return false;
    }
    base::atomic<int> visits{0};
  };
  idle_probe probe;
  cache::keeper& keeper = cache::keeper::of_process();
  keeper.add(probe);
  std::this_thread::sleep_for(5 * period);
  EXPECT_EQ(probe.visits, 0);
  keeper.wake(probe);
  EXPECT_TRUE(tests::eventually([&] { return probe.visits == 1; }));
  std::this_thread::sleep_for(5 * period);
  EXPECT_EQ(probe.visits, 1);
  keeper.remove(probe);
}

// Whoever destroys a cache waits until the keeper is out of it.
TEST_F(KeeperTest, CachesComeAndGoBesideIt) {
  EXPECT_TRUE(configure_keeper({.period = 1ms}));
  const raw_cache::options chosen = census.options_for(64, budget);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        raw_cache cache("brief", chosen);
        fill_and_empty(cache, 500);
        if (round % 10 == 0) std::this_thread::sleep_for(2ms);
      }
    });
  }
  for (std::thread& each : threads) each.join();
}

// KF-14: destructors run on the keeper, and may use caches.
TEST_F(KeeperTest, ADestructorThatUsesTheSameCacheIsFine) {
  struct helper {
    base::atomic<raw_cache*> cache{nullptr};
    base::atomic<bool> inside{false};
    base::atomic<int> destroyed{0};
  };
  helper with;
  raw_cache::options chosen;
  chosen.size = 64;
  chosen.budget = &budget;
  chosen.context = &with;
  chosen.destroy = [](void*, void* context) {
    auto& mine = *static_cast<helper*>(context);
    raw_cache* cache = mine.cache;
    if (++mine.destroyed % 7 != 0 || cache == nullptr || mine.inside.exchange(true)) return;
    void* object = cache->try_get();
    cache->put(object);
    cache->trim(4_KiB);
    mine.inside = false;
  };
  raw_cache cache("recursive", chosen);
  with.cache = &cache;
  fill_and_empty(cache, 5000);
  EXPECT_TRUE(tests::eventually([&] { return with.destroyed > 4000; }));
  with.cache = nullptr;  // an audit finds no array that somebody is at
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built == 0; }));
  cache.audit();
  EXPECT_TRUE(configure_keeper({}));
}

TEST_F(KeeperTest, OptionsOutOfRangeAreRefused) {
  for (const keeper_options wrong : {keeper_options{.period = 999us}, keeper_options{.period = std::chrono::hours(2)},
                                     keeper_options{.objects_per_round = 0}}) {
    const result<void> answer = configure_keeper(wrong);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error(), error_from(EINVAL));
  }
  EXPECT_EQ(keeper_configuration().period, period);
}

// A forked child has no keeper yet.
TEST(KeeperDeathTest, WithoutAThreadCachesWorkAndALaterUseTriesAgain) {
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_EXIT(
      {
        const bool configured = static_cast<bool>(configure_keeper({.period = 1ms}));
        raw_cache first("first", {.size = 64});
        os::fault::arm(os::call::thread_create, 1, EAGAIN);
        first.put(first.try_get());
        const bool failed = os::fault::fired();
        os::fault::disarm();
        first.audit();
        raw_cache second("second", {.size = 64});
        second.put(second.try_get());
        const bool kept = tests::eventually([&] { return second.stats().objects_built == 0; });
        std::_Exit(configured && failed && kept ? 0 : 1);  // the parent's threads are no leak
      },
      testing::ExitedWithCode(0), "");
}

// The last use of all: after main, and after the keeper has been joined.
TEST(KeeperDeathTest, CachesInStaticStorageOutliveTheKeeper) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        static raw_cache* kept = nullptr;
        std::atexit([] {
          kept->put(kept->try_get());
          kept->audit();
          delete kept;
        });
        kept = new raw_cache("static", {.size = 64});  // starts the keeper, which stops before the function above runs
        kept->put(kept->try_get());
        static object_cache<int> destroyed_last("destroyed_last");
        destroyed_last.put(destroyed_last.get());
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace larder

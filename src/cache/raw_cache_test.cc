// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <new>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>
#include <larder/stats.h>

#include "cache/object_census_test.h"
#include "os/cpu_sequence.h"
#include "os/fault.h"
#include "tests/support/one_cpu.h"

namespace larder {
namespace {

class RawCacheTest : public testing::Test {
 protected:
  ~RawCacheTest() override {
    EXPECT_EQ(census.built(), 0U);
    EXPECT_EQ(budget.used(), bytes{});
  }
  static std::vector<void*> take(raw_cache& cache, std::size_t count) {
    std::vector<void*> objects(count);
    objects.resize(cache.get_many(objects.data(), count));
    EXPECT_EQ(objects.size(), count);
    return objects;
  }
  static void put_all(raw_cache& cache, const std::vector<void*>& objects) {
    for (void* object : objects) cache.put(object);
  }

  memory_budget budget{"test"};
  object_census census;
};

// KF-1: the numbers of the original failure, and more than a slab.
TEST_F(RawCacheTest, ConstructorAndDestructorCallsPair) {
  for (const std::size_t count : {1U, 20U, 61U, 62U, 63U, 500U}) {
    const std::uint64_t constructed_before = census.constructions();
    {
      raw_cache cache("pairs", census.options_for(64, budget));
      put_all(cache, take(cache, count));
      EXPECT_EQ(census.constructions() - constructed_before, count);
      cache.trim();
      EXPECT_EQ(census.built(), 0U);
      cache.audit();
    }
    EXPECT_EQ(census.constructions(), census.destructions());
  }
}

TEST_F(RawCacheTest, AnObjectIsBuiltOnceAndHandedOutManyTimes) {
  const tests::stays_on_one_cpu pinned;  // another's array is looked into only once the limit is reached
  raw_cache cache("reuse", census.options_for(64, budget));
  void* first = cache.try_get();
  for (int i = 0; i < 1000; ++i) {
    cache.put(first);
    ASSERT_EQ(cache.try_get(), first);
  }
  cache.put(first);
  EXPECT_EQ(census.constructions(), 1U);
  cache.audit();
}

// KF-2
TEST_F(RawCacheTest, WorksOnAfterTrim) {
  raw_cache cache("trimmed", census.options_for(64, budget));
  for (int round = 0; round < 3; ++round) {
    void* object = cache.try_get();
    ASSERT_NE(object, nullptr);
    cache.put(object);
    EXPECT_EQ(cache.trim(), cache.stats().slab_bytes);
    EXPECT_EQ(cache.trim(), bytes{});
    cache.audit();
  }
}

TEST_F(RawCacheTest, TrimStopsWhenEnoughIsReleased) {
  raw_cache cache("trimmed", census.options_for(64, budget));
  put_all(cache, take(cache, 620));
  EXPECT_EQ(cache.stats().slabs_empty + cache.stats().slabs_partial + cache.stats().slabs_full, 10U);
  cache.trim(bytes{});  // what arrays and depot hold goes to the slabs
  const bytes before = budget.used();
  EXPECT_EQ(cache.trim(5000_B), 8_KiB);
  EXPECT_EQ(budget.used(), before - 8_KiB);
  EXPECT_EQ(cache.stats().slabs_empty, 8U);
}

// KF-4
TEST_F(RawCacheTest, AFailingConstructorLeavesTheCacheUsable) {
  for (const bool by_exception : {false, true}) {
    raw_cache cache("fails", census.options_for(64, budget));
    void* first = cache.try_get();
    const bytes before = budget.used();
    census.fail_after(0, by_exception);
    EXPECT_EQ(cache.try_get(), nullptr);
    census.fail_after(0, by_exception);
    if (by_exception) {
      EXPECT_THROW((void)cache.get(), std::runtime_error);
    } else {
      EXPECT_EQ(cache.get().error(), error_from(EIO));
    }
    EXPECT_EQ(budget.used(), before);
    EXPECT_EQ(cache.stats().construct_failures, 2U);
    cache.audit();
    const result<void*> second = cache.get();
    ASSERT_TRUE(second);
    cache.put(*second);
    cache.put(first);
    cache.audit();
  }
}

TEST_F(RawCacheTest, GetManyStopsBeforeTheObjectThatCannotBeBuilt) {
  for (const bool by_exception : {false, true}) {
    raw_cache cache("fails", census.options_for(64, budget));
    census.fail_after(7, by_exception);
    std::vector<void*> objects(20);
    objects.resize(cache.get_many(objects.data(), 20));
    EXPECT_EQ(objects.size(), 7U);
    cache.audit();
    put_all(cache, objects);
  }
}

TEST_F(RawCacheTest, WhereTheConstructorFailsABuiltObjectWillDo) {
  raw_cache::options chosen = census.options_for(20'000, budget);
  chosen.reservation = 4;
  raw_cache cache("fails", chosen);
  const std::vector<void*> all = take(cache, 7);
  // One built object is free in a slab with much room; the fullest slab with room has none.
  cache.put(all[0]);
  census.fail_always(true);
  void* object = cache.try_get();
  EXPECT_EQ(object, all[0]);
  EXPECT_EQ(cache.try_get(), nullptr);
  census.fail_always(false);
  put_all(cache, all);
}

// KF-4: a reservation that cannot be built whole leaves nothing behind.
TEST_F(RawCacheTest, CreationThatFailsLeavesNothing) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.reservation = 100;
  for (const int after : {0, 1, 61, 62, 99}) {
    census.fail_after(after);
    EXPECT_EQ(raw_cache::create("fails", chosen).error(), error_from(EIO));
    EXPECT_EQ(budget.used(), bytes{});
    EXPECT_EQ(census.built(), 0U);
    census.fail_after(after, true);
    EXPECT_THROW((void)raw_cache::create("throws", chosen), std::runtime_error);
    EXPECT_EQ(budget.used(), bytes{});
    EXPECT_EQ(census.built(), 0U);
  }
  census.fail_after(50);
  EXPECT_THROW(raw_cache("fails", chosen), std::system_error);
  memory_budget small("small", {.limit = 8_KiB}, &budget);
  chosen.budget = &small;
  EXPECT_EQ(raw_cache::create("too large", chosen).error(), error_from(ENOMEM));
  EXPECT_THROW(raw_cache("too large", chosen), std::bad_alloc);
}

TEST_F(RawCacheTest, OptionsThatMakeNoSenseAreAnError) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 5;
  chosen.reservation = 6;
  EXPECT_EQ(raw_cache::create("limit", chosen).error(), error_from(EINVAL));
  chosen.limit = chosen.reservation = 0;
  EXPECT_EQ(raw_cache::create("nothing", chosen).error(), error_from(EINVAL));
  chosen = census.options_for(64, budget);
  chosen.alignment = 3;
  EXPECT_EQ(raw_cache::create("alignment", chosen).error(), error_from(EINVAL));
}

// KF-9, KF-20: 31 objects to a slab and limit = reservation = 100; a limit under a slab's capacity; one object.
TEST_F(RawCacheTest, LimitCountsObjectsExactly) {
  for (const std::size_t both : {1U, 20U, 100U}) {
    raw_cache::options chosen = census.options_for(128, budget);
    chosen.limit = chosen.reservation = both;
    raw_cache cache("exact", chosen);
    EXPECT_EQ(cache.stats().objects_per_slab, 31U);
    for (int round = 0; round < 3; ++round) {
      const std::vector<void*> all = take(cache, both);
      EXPECT_EQ(cache.try_get(), nullptr);
      EXPECT_EQ(cache.get(time_point{}).error(), error_from(ETIMEDOUT));
      put_all(cache, all);
    }
    EXPECT_EQ(census.built(), both);
    cache.audit();
  }
}

// KF-10, KF-20
TEST_F(RawCacheTest, ReservationIsBuiltObjectsThatAreServedWithoutMemory) {
  raw_cache::options chosen = census.options_for(3000, budget);
  memory_budget own("own", {.limit = 1_MiB}, &budget);
  chosen.budget = &own;
  chosen.reservation = 50;
  raw_cache cache("reserved", chosen);
  EXPECT_EQ(census.built(), 50U);
  ASSERT_TRUE(own.try_charge(own.limit() - own.used()));
  census.fail_always(true);
  for (int round = 0; round < 3; ++round) {
    const std::vector<void*> all = take(cache, 50);
    EXPECT_EQ(census.built(), 50U);
    put_all(cache, all);
    EXPECT_EQ(cache.trim(), bytes{});
    cache.audit();
  }
  census.fail_always(false);
  own.release(own.used() - cache.stats().charged);
}

TEST_F(RawCacheTest, TrimLeavesTheReservation) {
  raw_cache::options chosen = census.options_for(3000, budget);
  chosen.reservation = 10;
  raw_cache cache("reserved", chosen);
  put_all(cache, take(cache, 200));
  cache.trim();
  EXPECT_GE(census.built(), 10U);
  EXPECT_LE(census.built(), 10U + cache.stats().objects_per_slab);
  cache.audit();
}

// KF-9: objects in the CPUs' arrays are fetched before a get fails, at the limit and when memory is short.
TEST_F(RawCacheTest, CachedObjectsAreFetchedBeforeAGetFails) {
  raw_cache::options chosen = census.options_for(64, budget);
  chosen.limit = 200;
  raw_cache cache("limited", chosen);
  for (int round = 0; round < 5; ++round) put_all(cache, take(cache, 200));
  EXPECT_GT(cache.stats().objects_cached, 0U);
  put_all(cache, take(cache, 200));

  memory_budget own("own", {.limit = 64_KiB}, &budget);
  chosen.budget = &own;
  chosen.limit = raw_cache::no_limit;
  raw_cache short_of_memory("short", chosen);
  std::vector<void*> all;
  while (void* object = short_of_memory.try_get()) all.push_back(object);
  for (int round = 0; round < 5; ++round) {
    put_all(short_of_memory, all);
    take(short_of_memory, all.size());
  }
  put_all(short_of_memory, all);
}

// KF-14: no lock is held when user code runs.
TEST_F(RawCacheTest, ConstructorAndDestructorMayUseTheSameCache) {
  struct context {
    raw_cache* cache = nullptr;
    int depth = 0;
    int calls = 0;
  } inner;
  raw_cache::options chosen;
  chosen.size = 64;
  chosen.budget = &budget;
  chosen.context = &inner;
  const auto use = [](void* self) {
    auto& at = *static_cast<context*>(self);
    ++at.calls;
    if (at.cache == nullptr || at.depth > 2) return;
    ++at.depth;
    if (void* object = at.cache->try_get()) {
      at.cache->put(object);
      at.cache->trim();
    }
    (void)at.cache->stats();
    --at.depth;
  };
  static const auto run = use;
  chosen.construct = [](void*, void* self) -> result<void> {
    run(self);
    return {};
  };
  chosen.destroy = [](void*, void* self) { run(self); };
  chosen.reset = chosen.destroy;
  raw_cache cache("recursive", chosen);
  inner.cache = &cache;
  put_all(cache, take(cache, 100));
  cache.trim();
  cache.audit();
  inner.cache = nullptr;
  EXPECT_GT(inner.calls, 300);
}

TEST_F(RawCacheTest, ResetRunsOncePerPut) {
  int resets = 0;
  raw_cache::options chosen;
  chosen.size = 16;
  chosen.budget = &budget;
  chosen.context = &resets;
  chosen.reset = [](void*, void* count) { ++*static_cast<int*>(count); };
  raw_cache cache("reset", chosen);
  put_all(cache, take(cache, 300));
  EXPECT_EQ(resets, 300);
  const std::vector<void*> objects = take(cache, 200);
  cache.put_many(objects.data(), objects.size());
  EXPECT_EQ(resets, 500);
}

TEST_F(RawCacheTest, TheUnchargedPartOfObjectsIsNotCharged) {
  raw_cache::options chosen = census.options_for(20 << 10, budget);
  chosen.alignment = page_size;
  chosen.uncharged_per_object = 4_KiB;
  raw_cache cache("stacks", chosen);
  const bytes empty = budget.used();
  const std::vector<void*> objects = take(cache, 4);
  EXPECT_EQ(budget.used() - empty, 52_KiB * 2);
  put_all(cache, objects);
  cache.trim();
  EXPECT_EQ(budget.used() - cache.stats().charged, bytes{});
}

// KF-15: what is cached is given back before anyone fails.
TEST_F(RawCacheTest, TheBudgetReclaimsEmptySlabsAndThenArrays) {
  memory_budget own("own", {.limit = 1_MiB}, &budget);
  raw_cache::options chosen = census.options_for(512, own);
  chosen.reservation = 3;
  raw_cache cache("idle", chosen);
  std::vector<void*> all;
  while (void* object = cache.try_get()) all.push_back(object);
  put_all(cache, all);
  const bytes before = own.used();
  EXPECT_GT(own.reclaim(10_KiB), 10_KiB - 1_B);
  EXPECT_GT(cache.stats().objects_cached, 0U);
  EXPECT_LT(own.used(), before);
  // Everything: then the arrays must be emptied too.
  ASSERT_TRUE(own.charge(1_MiB - 64_KiB));
  cache.audit();
  const std::vector<void*> reserved = take(cache, 3);
  put_all(cache, reserved);
  own.release(1_MiB - 64_KiB);
}

TEST_F(RawCacheTest, GetReclaimsFromOthers) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  raw_cache hoarder("hoarder", census.options_for(1000, own));
  std::vector<void*> all;
  while (void* object = hoarder.try_get()) all.push_back(object);
  put_all(hoarder, all);
  raw_cache::options chosen;
  chosen.size = 5000;
  chosen.budget = &own;
  raw_cache needy("needy", chosen);
  const result<void*> object = needy.get(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  ASSERT_TRUE(object);
  needy.put(*object);
}

TEST_F(RawCacheTest, CreationReclaimsFromOthers) {
  memory_budget own("own", {.limit = 256_KiB}, &budget);
  memory_budget part("part", {}, &own);
  raw_cache hoarder("hoarder", census.options_for(1000, own));
  std::vector<void*> all;
  while (void* object = hoarder.try_get()) all.push_back(object);
  put_all(hoarder, all);
  raw_cache::options chosen;
  chosen.size = 5000;
  chosen.budget = &part;
  chosen.reservation = 20;
  EXPECT_TRUE(raw_cache::create("needy", chosen));
}

TEST_F(RawCacheTest, AGetThatCanNeverSucceedFailsAtOnce) {
  memory_budget own("own", {.limit = 64_KiB}, &budget);
  raw_cache cache("hopeless", census.options_for(1 << 20, own));
  EXPECT_EQ(cache.get().error(), error_from(ENOMEM));
  EXPECT_EQ(cache.try_get(), nullptr);
  cache.audit();
}

// KF-48: each mapping fails once, at creation and in use.
TEST_F(RawCacheTest, AFailedMappingLeavesTheBudgetAsItWas) {
  bool failed = true;
  for (std::uint64_t nth = 1; failed; ++nth) {
    os::fault::arm(os::call::map, nth, ENOMEM);
    {
      raw_cache::options chosen = census.options_for(3000, budget);
      chosen.reservation = 20;
      const result<std::unique_ptr<raw_cache>> created = raw_cache::create("unlucky", chosen);
      if (created) {
        raw_cache& cache = **created;
        std::vector<void*> objects;
        for (int i = 0; i < 60; ++i) {
          if (const result<void*> object = cache.get(time_point{})) objects.push_back(*object);
        }
        EXPECT_GE(objects.size(), 59U);
        cache.audit();
        EXPECT_EQ(cache.stats().charged, budget.used());
        put_all(cache, objects);
        cache.trim();
        cache.audit();
      } else {
        EXPECT_EQ(created.error(), error_from(ENOMEM));
      }
    }
    EXPECT_EQ(budget.used(), bytes{});
    EXPECT_EQ(census.built(), 0U);
    failed = os::fault::fired();
    os::fault::disarm();
  }
}

// KF-19
TEST_F(RawCacheTest, SaysHowItRuns) {
  raw_cache cache("mode", census.options_for(64, budget));
  const raw_cache::mode mode = cache.active_mode();
  switch (os::sequences()) {
    case os::sequence_mode::concurrency_id:
      EXPECT_EQ(mode.name, "rseq-cid");
      EXPECT_EQ(mode.reason, "");
      break;
    case os::sequence_mode::cpu_id:
      EXPECT_EQ(mode.name, "rseq-cpu");
      EXPECT_NE(mode.reason, "");
      break;
    case os::sequence_mode::sharded:
      EXPECT_EQ(mode.name, "sharded");
      EXPECT_NE(mode.reason, "");
  }
  EXPECT_EQ(cache.name(), "mode");
}

TEST_F(RawCacheTest, FiguresAreInTheStatistics) {
  raw_cache cache("shown", census.options_for(64, budget));
  const std::vector<void*> objects = take(cache, 5);
  cache.put(objects[0]);
  std::map<std::string, std::uint64_t, std::less<>> shown;
  for_each_stat([&](const stat& each) {
    if (each.component == "object_cache/shown") shown[std::string(each.name)] = each.value;
  });
  EXPECT_EQ(shown["objects_out"], 4U);
  EXPECT_EQ(shown["objects_cached"], 1U);
  EXPECT_EQ(shown["objects_built"], 5U);
  EXPECT_EQ(shown["gets"], 5U);
  EXPECT_EQ(shown["puts"], 1U);
  EXPECT_EQ(shown["constructed"], 5U);
  EXPECT_EQ(shown["charged_bytes"], budget.used().count);
  for (std::size_t i = 1; i < 5; ++i) cache.put(objects[i]);
}

// KF-5
TEST(RawCacheDeathTest, DestroyingACacheWithObjectsOutNamesItAndTheCount) {
  EXPECT_DEATH(
      {
        raw_cache::options chosen;
        chosen.size = 64;
        raw_cache cache("abandoned", chosen);
        void* objects[3];
        (void)cache.get_many(objects, 3);
      },
      "cache \"abandoned\" destroyed while 3 objects are out");
}

TEST(RawCacheDeathTest, MisuseIsFoundWhenTheObjectReachesItsSlab) {
  raw_cache::options chosen;
  chosen.size = 100'000;  // no CPU array
  raw_cache cache("strict", chosen);
  raw_cache other("other", chosen);
  void* object = cache.try_get();
  int foreign = 0;
  EXPECT_DEATH(cache.put(&foreign), "cache \"strict\": put of .*, which is no object of this cache");
  EXPECT_DEATH(other.put(object), "cache \"other\": put of .*, which is no object of this cache");
  cache.put(object);
  EXPECT_DEATH(cache.put(object), "cache \"strict\": put of .*twice");
}

TEST(RawCacheDeathTest, ADoublePutOfSmallObjectsIsFoundAtTheLatestInTheSlab) {
  raw_cache::options chosen;
  chosen.size = 64;
  raw_cache cache("small", chosen);
  void* object = cache.try_get();
  cache.put(object);
  EXPECT_DEATH(
      {
        cache.put(object);
        cache.trim();
      },
      "cache \"small\": put of .*twice");
}

}  // namespace
}  // namespace larder

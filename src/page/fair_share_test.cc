// SPDX-License-Identifier: Apache-2.0
//
// Several caches on one budget, and several files in one cache.
#include <array>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "page/page_test.h"

namespace larder::page {
namespace {

constexpr std::uint64_t page = page_size;
constexpr std::uint32_t guaranteed = 16;

// A cache with a file of which so many pages were read.
struct tenant {
  tenant(memory_budget& budget, const char* name, std::uint32_t weight, std::uint64_t pages)
      : disk(pages * page),
        cache(*page_cache::create(
            name, {.budget = &budget, .guaranteed_pages = guaranteed, .limit = 8_MiB, .weight = weight})),
        file(*cache->open(disk)) {
    EXPECT_TRUE(file->read_ahead(0, bytes{pages * page}));
  }
  ~tenant() {
    file.reset();
    cache->audit();
  }
  double surplus() const { return static_cast<double>(cache->stats().pages_owned - guaranteed); }

  test_disk disk;
  std::unique_ptr<page_cache> cache;
  std::unique_ptr<cached_file> file;
};

constexpr double step_pages = 4;

TEST(FairCachesTest, GiveBackUntilTheirSharesAreAsTheirWeights) {
  memory_budget budget("test", {.limit = 64_MiB});
  {
    const tenant small(budget, "small", 1, guaranteed + 600);
    const tenant middle(budget, "middle", 2, guaranteed + 300);
    const tenant large(budget, "large", 4, guaranteed + 900);
    ASSERT_EQ(small.surplus() + middle.surplus() + large.surplus(), 1800);
    ASSERT_EQ(budget.reclaim(bytes{400 * page}).count, 400 * page);
    EXPECT_NEAR(small.surplus(), 220, step_pages);
    EXPECT_EQ(middle.surplus(), 300) << "by weight it has least";
    EXPECT_NEAR(large.surplus(), 880, step_pages);
    ASSERT_EQ(budget.reclaim(bytes{700 * page}).count, 700 * page);
    EXPECT_NEAR(small.surplus(), 100, step_pages);
    EXPECT_NEAR(middle.surplus(), 200, step_pages);
    EXPECT_NEAR(large.surplus(), 400, step_pages);
    EXPECT_EQ(budget.reclaim(64_MiB).count, 700 * page) << "all but what is guaranteed";
  }
  EXPECT_EQ(budget.used(), 0_KiB);
}

// Who waits for memory is served by the cache with the most, and dirty pages are no way out of it.
TEST(FairCachesTest, WaiterTakesFromTheLargest) {
  memory_budget budget("test", {.limit = 4_MiB});
  {
    const tenant small(budget, "small", 1, guaranteed + 100);
    const tenant large(budget, "large", 1, guaranteed + 300);
    ASSERT_TRUE(large.file->write(0, filled(100 * page, 3)));
    const bytes room = budget.limit() - budget.used();
    ASSERT_TRUE(budget.charge(room + bytes{150 * page}));
    EXPECT_EQ(small.surplus(), 100);
    EXPECT_EQ(large.surplus(), 150);
    EXPECT_EQ(value_at(*large.file, 5 * page), 3);
    ASSERT_TRUE(large.file->flush());
    budget.release(room + bytes{150 * page});
  }
}

// Who came first does not keep what it took: one that is at work gets its share of it, by weight, at its own misses.
TEST(FairCachesTest, BusyOneGrowsToItsShareAtTheCostOfAnIdleOne) {
  for (const std::uint32_t weight : {1U, 3U}) {
    memory_budget budget("test", {.limit = 4_MiB});
    {
      const tenant idle(budget, "idle", 1, 2000);
      EXPECT_GT(idle.surplus(), 700) << "all there is";
      const tenant busy(budget, "busy", weight, guaranteed);
      const double both = idle.surplus() + busy.surplus();
      test_disk disk(4000 * page);
      auto file = *busy.cache->open(disk);
      for (std::uint64_t number = 0; number < 4000; number += 2) value_at(*file, number * page);
      EXPECT_NEAR(busy.surplus(), both * weight / (1 + weight), both / 64 + step_pages);
      // What is known of each frame takes memory too, and stays.
      EXPECT_NEAR(idle.surplus() + busy.surplus(), both, both / 64 + step_pages) << "nothing lies idle for it";
      const auto reclaimed = static_cast<double>(idle.cache->stats().pages_reclaimed);
      for (std::uint64_t number = 1; number < 4000; number += 2) value_at(*file, number * page);
      EXPECT_NEAR(static_cast<double>(idle.cache->stats().pages_reclaimed), reclaimed, step_pages) << "now it is even";
      busy.cache->audit();
      idle.cache->audit();
    }
    EXPECT_EQ(budget.used(), 0_KiB);
  }
}

// What one has that is dirty it does not give; who is next does.
TEST(FairCachesTest, DirtyPagesOfTheRichestDoNotKeepABusyOnePoor) {
  memory_budget budget("test", {.limit = 4_MiB});
  {
    const tenant dirty(budget, "dirty", 1, guaranteed + 400);
    ASSERT_TRUE(dirty.file->write(0, filled(200 * page, 3)));
    const tenant idle(budget, "idle", 1, 2000);
    const double of_idle = idle.surplus();
    const tenant busy(budget, "busy", 1, guaranteed);
    test_disk disk(8000 * page);
    auto file = *busy.cache->open(disk);
    for (std::uint64_t number = 0; number < 8000; number += 2) value_at(*file, number * page);
    EXPECT_LT(idle.surplus(), of_idle);
    EXPECT_NEAR(busy.surplus(), idle.surplus(), 2 * step_pages);
    EXPECT_EQ(disk.writes, 0U);
    EXPECT_EQ(dirty.disk.writes, 0U);
    EXPECT_GE(dirty.surplus(), 200 - guaranteed);
    ASSERT_TRUE(dirty.file->flush());
  }
}

std::uint64_t pages_reclaimed(const page_cache& first, const page_cache& second) {
  return first.stats().pages_reclaimed + second.stats().pages_reclaimed;
}

// Reads both at random, so many times, by turns.
void read_both(cached_file& first, cached_file& second, int times, std::mt19937_64& random) {
  for (; times > 0; --times) {
    value_at(first, random() % first.size().count);
    value_at(second, random() % second.size().count);
  }
}

// Large pages, and an odd number of them: the one that is left over does not go to and fro.
TEST(FairCachesTest, TwoBusyOnesTakeNothingFromEachOtherOnceTheyAreEven) {
  for (const std::uint64_t second_page : {std::uint64_t{65536}, page}) {
    memory_budget budget("test", {.limit = 8_MiB});
    const auto make = [&](const char* name, std::uint64_t length) {
      return *page_cache::create(name, {.budget = &budget, .guaranteed_pages = 1, .page_size = bytes{length}});
    };
    auto first = make("first", (64_KiB).count);
    auto second = make("second", second_page);
    test_disk disk((64_MiB).count);
    auto file = *first->open(disk);
    auto other = *second->open(disk);
    std::mt19937_64 random(1);
    read_both(*file, *other, 5000, random);
    const std::uint64_t reclaimed = pages_reclaimed(*first, *second);
    read_both(*file, *other, 5000, random);
    EXPECT_EQ(pages_reclaimed(*first, *second), reclaimed);
    const double of_first = static_cast<double>(first->stats().pages_owned - 1) * 65536;
    const double of_second = static_cast<double>(second->stats().pages_owned - 1) * static_cast<double>(second_page);
    EXPECT_NEAR(of_first, of_second, 2 * 65536);
  }
}

// Where a page of metadata is due as well, less than both is of no use: 68 KiB for the next frame, of which 64 are
// given.
TEST(FairCachesTest, WhatTheOtherCannotUseIsNotGiven) {
  memory_budget budget("test", {.limit = 8_MiB + bytes{100 << 10}});
  const auto make = [&](const char* name, bytes limit) {
    return *page_cache::create(
        name, {.budget = &budget, .guaranteed_pages = 1, .limit = limit, .page_size = 64_KiB, .read_ahead = {}});
  };
  auto first = make("first", 64_KiB * 66);
  auto second = make("second", unlimited);
  test_disk disk((64_MiB).count);
  auto file = *first->open(disk);
  auto other = *second->open(disk);
  std::mt19937_64 random(1);
  for (int times = 0; times < 500; ++times) value_at(*file, random() % (64_MiB).count);
  EXPECT_EQ(first->stats().pages_owned, 66U);
  read_both(*other, *file, 3000, random);
  const std::uint64_t reclaimed = pages_reclaimed(*first, *second);
  read_both(*other, *file, 3000, random);
  EXPECT_EQ(pages_reclaimed(*first, *second), reclaimed);
}

// The pages that the policy would take first are all dirty, and more than it looks at in one call.
TEST(FairCachesTest, DirtyOnesInFrontDoNotKeepWhatIsBehindThem) {
  for (const eviction_policy policy : eviction_policies) {
    memory_budget budget("test", {.limit = 32_MiB});
    test_disk disk(9000 * page);
    auto idle = *page_cache::create(
        "idle", {.budget = &budget, .guaranteed_pages = 16, .policy = policy, .read_ahead = {}, .dirty_percent = 100});
    auto file = *idle->open(disk);
    for (std::uint64_t number = 0; number < 600; ++number) ASSERT_TRUE(file->write(number * page, filled(page, 1)));
    for (std::uint64_t number = 600; number < 7000; ++number) value_at(*file, number * page);
    const std::uint32_t before = idle->stats().pages_owned;
    auto busy = *page_cache::create("busy", {.budget = &budget, .guaranteed_pages = 16, .read_ahead = {}});
    test_disk other_disk(9000 * page);
    auto other = *busy->open(other_disk);
    for (std::uint64_t number = 0; number < 9000; ++number) value_at(*other, number * page);
    EXPECT_LT(idle->stats().pages_owned, before - 1000) << name_of(policy);
    EXPECT_GT(busy->stats().pages_owned, 1000U) << name_of(policy);
    ASSERT_TRUE(file->flush());
  }
}

TEST(FairCachesTest, CachesComeAndGoWhileOthersTakeTheirShares) {
  memory_budget budget("test", {.limit = 2_MiB});
  {
    std::vector<std::thread> threads;
    base::atomic<int> lives{0};
    base::atomic<std::uint64_t> taken{0};
    for (unsigned number = 0; number < 3; ++number) {
      threads.emplace_back([&, number] {
        std::mt19937_64 random(number);
        for (int life = 0; life < 20; ++life) {
          auto made = page_cache::create("brief", {.budget = &budget, .guaranteed_pages = 4, .weight = 1 + number});
          if (!made) continue;  // the others have it all for now
          test_disk disk(400 * page);
          auto opened = (*made)->open(disk);
          if (!opened) continue;
          auto file = *std::move(opened);
          for (int round = 0; round < 400; ++round) {
            const std::uint64_t offset = random() % 400 * page;
            if (random() % 8 == 0) {
              EXPECT_TRUE(file->write(offset, filled(page, 7)));
            } else {
              const int found = value_at(*file, offset);
              EXPECT_TRUE(found == 0 || found == 7) << found;
            }
          }
          (*made)->audit();
          EXPECT_TRUE(file->flush());
          ++lives;
          taken += (*made)->stats().pages_reclaimed;
        }
      });
    }
    for (std::thread& each : threads) each.join();
    EXPECT_GT(lives, 20);
    EXPECT_GT(taken, 0U);
  }
  budget.audit();
  EXPECT_EQ(budget.used(), 0_KiB);
}

TEST(FairCachesTest, CacheThatMayNotGrowTakesNothing) {
  memory_budget budget("test", {.limit = 4_MiB});
  const tenant idle(budget, "idle", 1, 2000);
  const std::uint64_t reclaimed = idle.cache->stats().pages_reclaimed;
  auto small = *page_cache::create("small", {.budget = &budget, .guaranteed_pages = 16, .limit = bytes{16 * page}});
  const std::uint64_t for_it = idle.cache->stats().pages_reclaimed;
  EXPECT_GT(for_it, reclaimed) << "what it is guaranteed";
  test_disk disk(1000 * page);
  auto file = *small->open(disk);
  for (std::uint64_t number = 0; number < 1000; number += 2) value_at(*file, number * page);
  EXPECT_EQ(idle.cache->stats().pages_reclaimed, for_it);
}

TEST(FairCachesTest, CacheWithoutWeightIsRefused) {
  memory_budget budget("test", {.limit = 4_MiB});
  EXPECT_EQ(page_cache::create("none", {.budget = &budget, .weight = 0}).error(), error_from(EINVAL));
  EXPECT_EQ(budget.used(), 0_KiB);
}

class FilesInOneCacheTest : public page_cache_test, public ::testing::WithParamInterface<eviction_policy> {};

// A file is read from end to end beside another whose pages are used again and again.
TEST_P(FilesInOneCacheTest, ScanOfOneDoesNotDriveOutTheOthersHotPages) {
  policy_ = GetParam();
  make_fixed_cache(64);
  test_disk hot_disk(32 * page);
  test_disk scanned_disk(1000 * page);
  auto hot = open(hot_disk);
  auto scanned = open(scanned_disk);
  for (int times = 0; times < 4; ++times) {
    for (std::uint64_t number = 0; number < 32; ++number) value_at(*hot, number * page);
  }
  const std::uint64_t reads = hot_disk.reads;
  for (std::uint64_t number = 0; number < 1000; ++number) {
    value_at(*scanned, number * page);
    value_at(*hot, number % 32 * page);
  }
  EXPECT_EQ(hot_disk.reads, reads);
  // Nor if nobody looks at the hot ones meanwhile, for as long as there are as many others.
  for (std::uint64_t number = 0; number < 64; ++number) value_at(*scanned, number * 2 * page);
  std::uint32_t left = 0;
  for (std::uint64_t number = 0; number < 32; ++number) left += hot->resident(number * page, bytes{page}) ? 1U : 0U;
  EXPECT_GE(left, 16U);
}

INSTANTIATE_TEST_SUITE_P(Policies, FilesInOneCacheTest,
                         ::testing::Values(eviction_policy::sieve, eviction_policy::s3_fifo), policy_in_name());

}  // namespace
}  // namespace larder::page

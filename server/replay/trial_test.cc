// SPDX-License-Identifier: Apache-2.0
#include "server/replay/trial.h"

#include <algorithm>
#include <list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

#include "os/memory.h"
#include "server/replay/request_store.h"
#include "server/replay/survey.h"
#include "server/service.h"
#include "tests/support/model_random.h"

namespace larder::server::replay {
namespace {

constexpr std::uint64_t page = page_size;

request read_of(std::uint64_t first_page, std::uint64_t pages = 1) {
  return {operation::read, first_page * page, pages * page};
}
request write_of(std::uint64_t first_page, std::uint64_t pages = 1) {
  return {operation::write, first_page * page, pages * page};
}

// A cache's hits of reads of single pages.
std::uint64_t hits_of(const std::vector<std::uint64_t>& pages, bytes memory, eviction_policy policy) {
  trial tried({memory, policy});
  for (const std::uint64_t each : pages) tried.apply(read_of(each));
  EXPECT_EQ(tried.now().look_ups(), pages.size());
  return tried.now().pages.hits;
}

// How many pages a cache holds when it is full.
std::uint64_t capacity_of(bytes memory, eviction_policy policy) {
  trial tried({memory, policy});
  for (std::uint64_t number = 0; number < 10'000; ++number) tried.apply(read_of(number));
  return tried.now().pages.pages_owned;
}

// The plain text of least recently used: a list in order of use.
std::uint64_t hits_of_lru_model(const std::vector<std::uint64_t>& pages, std::uint64_t capacity) {
  std::list<std::uint64_t> order;
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> at;
  std::uint64_t hits = 0;
  for (const std::uint64_t each : pages) {
    if (const auto found = at.find(each); found != at.end()) {
      ++hits;
      order.splice(order.begin(), order, found->second);
      continue;
    }
    if (order.size() == capacity) {
      at.erase(order.back());
      order.pop_back();
    }
    order.push_front(each);
    at[each] = order.begin();
  }
  return hits;
}

TEST(TrialTest, TheLruPolicyHitsExactlyAsAListInOrderOfUseDoes) {
  tests::model_random random;
  std::vector<std::uint64_t> pages;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t spread = std::uint64_t{1} << random.between(1, 9);
    pages.push_back(random.below(spread) * 17);
  }
  for (const bytes memory : {64_KiB, 256_KiB, 1_MiB}) {
    const std::uint64_t capacity = capacity_of(memory, eviction_policy::lru);
    EXPECT_EQ(hits_of(pages, memory, eviction_policy::lru), hits_of_lru_model(pages, capacity));
  }
}

// A cache of four pages, worked out by hand; (-X): X leaves, + is a hit. First A B A C D E A B A C:
//
//   lru          A B A+ C D  E(-B)  A+  B(-C)  A+  C(-D)     3 hits
//   clock        A B A+ C D  E(-B)  A+  B(-C)  A+  C(-D)     3 hits: the hand finds A marked, and B is the next
//   sieve        A B A+ C D  E(-B)  A+  B(-C)  A+  C(-D)     3 hits: the hand goes on from where B was
//   s3-fifo      A B A+ C D  E(-A)  A(-E)  B+     A+  C+     4 hits: the small queue has one page, first A, and one hit
//                                                            is too few to leave it for the main queue; there A
//                                                            returns to, for it left lately
//
// Then A A B C D E F A, where A is used twice at once:
//
//   lru          A A+ B C D  E(-A)  F(-B)  A(-C)             1 hit
//   clock, sieve A A+ B C D  E(-B)  F(-C)  A+                2 hits
//   s3-fifo      A A+ B C D  E(-A)  F(-E)  A(-F)             1 hit
class HandWorkedTest : public testing::TestWithParam<eviction_policy> {};

TEST_P(HandWorkedTest, FourPagesHitAsWorkedOutByHand) {
  const eviction_policy policy = GetParam();
  const bytes memory = trial::memory_for(4, policy, bytes{page});
  ASSERT_EQ(capacity_of(memory, policy), 4U);
  constexpr std::uint64_t a = 10, b = 20, c = 30, d = 40, e = 50, f = 60;
  const bool keeps_what_was_hit_once = policy == eviction_policy::sieve || policy == eviction_policy::clock;
  EXPECT_EQ(hits_of({a, b, a, c, d, e, a, b, a, c}, memory, policy), policy == eviction_policy::s3_fifo ? 4U : 3U);
  EXPECT_EQ(hits_of({a, a, b, c, d, e, f, a}, memory, policy), keeps_what_was_hit_once ? 2U : 1U);
}
INSTANTIATE_TEST_SUITE_P(OfPolicies, HandWorkedTest, testing::ValuesIn(eviction_policies),
                         [](const testing::TestParamInfo<eviction_policy>& each) {
                           std::string name(name_of(each.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST(TrialTest, WhatFitsIsMissedOnceUnderEveryPolicy) {
  for (const eviction_policy policy : eviction_policies) {
    trial tried({trial::memory_for(100, policy, bytes{page}), policy});
    for (int round = 0; round < 3; ++round) tried.apply(read_of(0, 100));
    const outcome result = tried.now();
    EXPECT_EQ(result.pages.misses, 100U) << name_of(policy);
    EXPECT_EQ(result.pages.hits, 200U);
    EXPECT_EQ(result.pages.evictions, 0U);
    EXPECT_EQ(result.disk_read, bytes{100 * page});
    EXPECT_DOUBLE_EQ(result.hit_ratio(), 200.0 / 300);
  }
}

TEST(TrialTest, LargePagesAreLookedUpAsTheSurveyCountsThem) {
  for (const bytes large : {8_KiB, 64_KiB}) {
    tests::model_random random;
    memory_budget budget("test");
    survey surveyed(large, budget);
    std::vector<request> requests;
    for (int i = 0; i < 1'000; ++i) {
      const auto what = static_cast<operation>(random.below(3));
      requests.push_back({what, random.below(4 << 20), random.below(300 << 10)});
      ASSERT_TRUE(surveyed.add(requests.back()));
    }
    for (const eviction_policy policy : eviction_policies) {
      for (const bytes memory : {1_MiB, trial::memory_for(surveyed.footprint_pages(), policy, large)}) {
        trial tried({memory, policy, large});
        for (const request& each : requests) tried.apply(each);
        EXPECT_EQ(tried.now().look_ups(), surveyed.look_ups()) << name_of(policy);
        if (memory > 1_MiB) {
          EXPECT_EQ(tried.now().pages.hits, surveyed.hits_most()) << name_of(policy);
        }
      }
    }
  }
}

TEST(TrialTest, WritesOfWholePagesReadNothingAndPartsAreReadAround) {
  trial tried({1_MiB, eviction_policy::sieve});
  // Of as many pages that are clean, or some would be written at once.
  tried.apply(read_of(1000, 100));
  const bytes before = tried.now().disk_read;
  tried.apply(write_of(0, 40));
  EXPECT_EQ(tried.now().disk_read, before);
  EXPECT_EQ(tried.now().pages.misses, 140U);
  EXPECT_EQ(tried.now().pages.pages_dirty, 40U);
  tried.apply({operation::write, 50 * page + 512, 512});
  EXPECT_EQ(tried.now().disk_read - before, bytes{page - 512});
  tried.apply({operation::write, 50 * page + 100, 1});  // it is there now
  EXPECT_EQ(tried.now().disk_read - before, bytes{page - 512});
  EXPECT_EQ(tried.now().pages.hits, 1U);
  EXPECT_EQ(tried.now().disk_written, 0_B);
  tried.apply({operation::flush, 0, 0});
  EXPECT_EQ(tried.now().disk_written, bytes{41 * page});
  EXPECT_EQ(tried.now().pages.pages_dirty, 0U);
  EXPECT_EQ(tried.now().pages.write_backs, 2U) << "40 neighbours in one, and one alone";
}

TEST(TrialTest, DiscardedPagesAreForgottenAndNeverWritten) {
  trial tried({1_MiB, eviction_policy::sieve});
  tried.apply(read_of(1000, 100));
  tried.apply(write_of(0, 10));
  tried.apply({operation::discard, 0, 10 * page});
  EXPECT_EQ(tried.now().pages.pages_dirty, 0U);
  tried.apply(read_of(0, 10));
  EXPECT_EQ(tried.now().pages.hits, 0U);
  tried.apply({operation::flush, 0, 0});
  EXPECT_EQ(tried.now().disk_written, 0_B);
}

TEST(TrialTest, RequestsOfNoBytesLookNothingUp) {
  trial tried({1_MiB, eviction_policy::sieve});
  tried.apply({operation::read, 123, 0});
  tried.apply({operation::write, 123, 0});
  tried.apply({operation::discard, 123, 0});
  EXPECT_EQ(tried.now().look_ups(), 0U);
  EXPECT_EQ(tried.now().hit_ratio(), 0);
}

TEST(TrialTest, TheEndOfTheLargestDiskIsAPageLikeOthers) {
  trial tried({1_MiB, eviction_policy::sieve});
  tried.apply({operation::write, disk_end_most - 1, 1});
  tried.apply({operation::read, disk_end_most - page, page});
  EXPECT_EQ(tried.now().pages.hits, 1U);
}

TEST(TrialTest, MemoryThatIsTooLittleOrMoreThanThereIsIsRefused) {
  for (const eviction_policy policy : eviction_policies) {
    const bytes least = trial::least_memory(policy, bytes{page});
    EXPECT_NO_THROW(trial({least, policy}));
    EXPECT_THROW(trial({least - 1_B, policy}), bad_start);
    EXPECT_THROW(trial({0_B, policy}), bad_start);
    EXPECT_THROW(trial({os::physical_memory() + 1_B, policy}), bad_start);
  }
}

// Every kind of request at once. `hits + misses` is what the survey counts, whatever the cache; a cache that holds all
// hits what the survey says is the most; and everything is the same the second time.
TEST(TrialTest, RandomRequestsAgreeWithTheSurveyInEveryCacheAndAreRepeatable) {
  tests::model_random random;
  memory_budget budget("test");
  survey surveyed(bytes{page}, budget);
  request_store stored(budget);
  std::vector<request> requests;
  for (int i = 0; i < 4'000; ++i) {
    request next;
    const std::uint64_t kind = random.below(20);
    next.what = kind < 9    ? operation::read
                : kind < 17 ? operation::write
                : kind < 19 ? operation::discard
                            : operation::flush;
    if (next.what != operation::flush) {
      next.offset = random.below(random.below(4) == 0 ? 4096 * page : 64 * page);
      next.length = random.below(random.below(4) == 0 ? 100 * page : 3 * page);
      if (random.below(2) == 0) {
        next.offset -= next.offset % page;
        next.length -= next.length % page;
      }
    }
    requests.push_back(next);
    ASSERT_TRUE(surveyed.add(next));
    ASSERT_TRUE(stored.add(next));
  }
  request_store::cursor cursor(stored);
  for (const request& each : requests) {
    request again;
    ASSERT_TRUE(cursor.next(again));
    ASSERT_EQ(again, each);
  }
  EXPECT_EQ(surveyed.requests(), requests.size());
  for (const eviction_policy policy : eviction_policies) {
    for (const bytes memory : {64_KiB, 600_KiB, trial::memory_for(surveyed.footprint_pages(), policy, bytes{page})}) {
      const auto run = [&] {
        trial tried({memory, policy});
        for (const request& each : requests) tried.apply(each);
        return tried.now();
      };
      const outcome first = run();
      const outcome second = run();
      EXPECT_EQ(first.look_ups(), surveyed.look_ups()) << name_of(policy) << " " << memory.count;
      EXPECT_LE(first.pages.hits, surveyed.hits_most());
      if (memory > 600_KiB) {
        EXPECT_EQ(first.pages.hits, surveyed.hits_most()) << name_of(policy);
        EXPECT_EQ(first.pages.evictions, 0U);
      }
      EXPECT_EQ(second.pages.hits, first.pages.hits);
      EXPECT_EQ(second.pages.evictions, first.pages.evictions);
      EXPECT_EQ(second.pages.write_backs, first.pages.write_backs);
      EXPECT_EQ(second.disk_read, first.disk_read);
      EXPECT_EQ(second.disk_written, first.disk_written);
    }
  }
}

TEST(SurveyTest, CountsWhatASetOfPagesSays) {
  memory_budget budget("test");
  {
    survey surveyed(bytes{page}, budget);
    ASSERT_TRUE(surveyed.add(read_of(0, 3)));
    ASSERT_TRUE(surveyed.add(write_of(2, 2)));
    ASSERT_TRUE(surveyed.add({operation::read, page - 1, 2}));  // two pages
    EXPECT_EQ(surveyed.look_ups(), 7U);
    EXPECT_EQ(surveyed.hits_most(), 3U);
    EXPECT_EQ(surveyed.footprint_pages(), 4U);
    EXPECT_EQ(surveyed.disk_end(), bytes{4 * page});
    // Page 1 goes; zeros are written to half of page 2, which was there.
    ASSERT_TRUE(surveyed.add({operation::discard, page, page + 100}));
    EXPECT_EQ(surveyed.hits_most(), 4U);
    ASSERT_TRUE(surveyed.add(read_of(1)));
    EXPECT_EQ(surveyed.hits_most(), 4U);
    EXPECT_EQ(surveyed.footprint_pages(), 4U) << "the page was known";
    ASSERT_TRUE(surveyed.add({operation::discard, 0, disk_end_most}));
    ASSERT_TRUE(surveyed.add(read_of(0, 4)));
    EXPECT_EQ(surveyed.hits_most(), 4U);
    EXPECT_EQ(surveyed.requests_of(operation::discard), 2U);
    EXPECT_GT(budget.used(), 0_B);
  }
  EXPECT_EQ(budget.used(), 0_B);
}

TEST(SurveyTest, WhatTheBudgetHasNoRoomForIsRefusedWhole) {
  memory_budget budget("test", {.limit = 400_B});
  survey surveyed(bytes{page}, budget);
  ASSERT_TRUE(surveyed.add(read_of(0)));
  EXPECT_FALSE(surveyed.add(read_of(400, 10'000)));
  EXPECT_EQ(surveyed.requests(), 1U);
  EXPECT_EQ(surveyed.look_ups(), 1U);
  EXPECT_EQ(surveyed.footprint_pages(), 1U);
}

TEST(RequestStoreTest, KeepsExtremesInFewBytes) {
  memory_budget budget("test", {.limit = 2_MiB});
  request_store stored(budget);
  const std::vector<request> extremes = {{operation::discard, 0, disk_end_most},
                                         {operation::read, 0, 1},
                                         {operation::write, disk_end_most, 0},
                                         {operation::read, 1, transfer_most},
                                         {operation::flush, 0, 0}};
  for (const request& each : extremes) ASSERT_TRUE(stored.add(each));
  request_store::cursor cursor(stored);
  request next;
  for (const request& each : extremes) {
    ASSERT_TRUE(cursor.next(next));
    EXPECT_EQ(next, each);
  }
  EXPECT_FALSE(cursor.next(next));
  EXPECT_FALSE(cursor.next(next));
  // Neighbours take some four bytes, so 2 MiB hold half a million; then the budget is full.
  std::uint64_t count = extremes.size();
  while (stored.add({operation::read, count * page, page})) ++count;
  EXPECT_GT(count, 400'000U);
  EXPECT_EQ(stored.size(), count);
  request_store::cursor again(stored);
  std::uint64_t found = 0;
  while (again.next(next)) ++found;
  EXPECT_EQ(found, count);
}

TEST(RequestStoreTest, AnEmptyStoreHasNothing) {
  memory_budget budget("test");
  const request_store stored(budget);
  request_store::cursor cursor(stored);
  request next;
  EXPECT_FALSE(cursor.next(next));
}

}  // namespace
}  // namespace larder::server::replay

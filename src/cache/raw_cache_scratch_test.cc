// SPDX-License-Identifier: Apache-2.0
//
// The scratch of free objects goes back to the system (raw_cache::options::scratch).
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>

#include "base/sanitizers.h"
#include "cache/keeper.h"
#include "os/fault.h"
#include "os/memory.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/one_cpu.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

constexpr std::size_t object_pages = 5;
constexpr std::size_t scratch_size = 3 * page_size;  // after the first page; the last is not scratch either

class RawCacheScratchTest : public testing::Test {
 protected:
  ~RawCacheScratchTest() override { os::fault::disarm(); }

  static raw_cache::options options_for(memory_budget& charged) {
    return {.size = object_pages * page_size,
            .alignment = page_size,
            .budget = &charged,
            .construct = [](void* object, void*) -> result<void> {
              static_cast<char*>(object)[0] = static_cast<char*>(object)[object_pages * page_size - 1] = 'r';
              return {};
            },
            .destroy = [](void* object, void*) { expect_record(object); },
            .scratch = {.offset = page_size, .length = scratch_size}};
  }
  static char* scratch_of(void* object) { return static_cast<char*>(object) + page_size; }
  static void expect_record(void* object) {
    EXPECT_EQ(static_cast<char*>(object)[0], 'r');
    EXPECT_EQ(static_cast<char*>(object)[object_pages * page_size - 1], 'r');
  }
  // Uses the last pages of the scratch, as a stack grows.
  static void use_scratch(void* object, std::size_t pages) {
    std::memset(scratch_of(object) + scratch_size - pages * page_size, 's', pages * page_size);
  }
  static bytes resident(void* object) {
    const auto found = os::look_for_residents(scratch_of(object), {scratch_size});
    EXPECT_TRUE(found);
    return found->resident;
  }

  // Takes `count` objects, uses two pages of the scratch of each, and puts back all but one of each slab.
  void use_and_put(std::size_t count) {
    std::vector<void*> all(count);
    ASSERT_EQ(cache->get_many(all.data(), count), count);
    std::vector<std::uintptr_t> slabs;
    for (void* each : all) {
      use_scratch(each, 2);
      const std::uintptr_t slab = reinterpret_cast<std::uintptr_t>(each) >> 16;  // 16 pages
      const bool first = std::find(slabs.begin(), slabs.end(), slab) == slabs.end();
      if (first) slabs.push_back(slab);
      (first ? out : free).push_back(each);
    }
    cache->put_many(free.data(), free.size());
    ASSERT_FALSE(free.empty());
  }
  bytes resident_of_free() const {
    bytes sum;
    for (void* each : free) sum += resident(each);
    return sum;
  }
  void expect_all_kept() {
    for (void* each : out) {
      EXPECT_EQ(resident(each), bytes{2 * page_size});
      EXPECT_EQ(scratch_of(each)[scratch_size - 1], 's');
    }
  }
  void put_what_is_out() {
    cache->put_many(out.data(), out.size());
    out.clear();
  }
  static void keep() { cache::keeper::of_process().round(); }

  const tests::keeper_at_rest at_rest;
  const tests::stays_on_one_cpu pinned;
  memory_budget budget{"scratch"};
  std::unique_ptr<raw_cache> cache = *raw_cache::create("scratch", options_for(budget));
  std::vector<void*> out;
  std::vector<void*> free;
};

TEST_F(RawCacheScratchTest, IdleObjectsLoseTheirScratchAndKeepTheRest) {
  use_and_put(60);
  EXPECT_EQ(resident_of_free(), bytes{2 * page_size} * free.size());
  keep();
  EXPECT_EQ(resident_of_free(), bytes{2 * page_size} * free.size()) << "used in this period";
  for (int round = 0; round < 2; ++round) keep();
  EXPECT_EQ(resident_of_free(), bytes{});
  expect_all_kept();
  cache->audit();
  const raw_cache::statistics now = cache->stats();
  EXPECT_EQ(now.scratch_given_back, bytes{2 * page_size} * free.size());
  EXPECT_EQ(now.scratch_used_most, bytes{2 * page_size});
  EXPECT_EQ(now.objects_built, 60U) << "only scratch went";

  // The next use finds a built object with empty scratch.
  std::vector<void*> again(free.size());
  ASSERT_EQ(cache->get_many(again.data(), again.size()), again.size());
  for (void* each : again) {
    expect_record(each);
    EXPECT_EQ(scratch_of(each)[scratch_size - 1], 0);
    use_scratch(each, 1);
  }
  cache->put_many(again.data(), again.size());
  EXPECT_EQ(cache->stats().constructed, 60U);
  put_what_is_out();
}

// KF-46: then the keeper sleeps.
TEST_F(RawCacheScratchTest, WhatIsGivenBackIsLeftAlone) {
  use_and_put(30);
  for (int round = 0; round < 3; ++round) keep();
  EXPECT_EQ(resident_of_free(), bytes{});
  os::fault::arm(os::call::residency, 1, EAGAIN, true);  // counts the calls
  for (int round = 0; round < 3; ++round) keep();
  EXPECT_EQ(os::fault::uses(), 0U) << "the cache is not at rest";
  cache->trim();
  EXPECT_EQ(os::fault::uses(), 0U) << "it was given back already";
  os::fault::disarm();
  put_what_is_out();
}

// While the cache is used, what its CPUs hold ready keeps its scratch, and what lies in slabs does not.
TEST_F(RawCacheScratchTest, OnlyWhatLiesInSlabsIsCold) {
  use_and_put(300);
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 4; ++i) cache->put(*cache->get());
    keep();
  }
  const raw_cache::statistics now = cache->stats();
  EXPECT_GT(now.objects_cached, 0U);
  EXPECT_EQ(now.objects_in_depot, 0U);
  EXPECT_LT(now.objects_cached, free.size());
  EXPECT_EQ(resident_of_free(), bytes{2 * page_size} * now.objects_cached);
  expect_all_kept();
  put_what_is_out();
}

// A round's work is bounded.
TEST_F(RawCacheScratchTest, ARoundGivesBackSoManyObjectsOnly) {
  use_and_put(300);
  ASSERT_TRUE(configure_keeper({.period = std::chrono::hours(1), .objects_per_round = 20}));
  bytes before = resident_of_free();
  int rounds = 0;
  for (; before > bytes{} && rounds < 1000; ++rounds) {
    keep();
    EXPECT_LE(before - resident_of_free(), bytes{2 * page_size * 24});
    before = resident_of_free();
  }
  EXPECT_LT(rounds, 1000);
  put_what_is_out();
}

TEST_F(RawCacheScratchTest, TrimAndReclaimGiveScratchBackWhereEmptySlabsAreNotEnough) {
  use_and_put(60);
  for (int times = 0; times < 2; ++times) {
    const bytes charged = cache->stats().charged;
    if (times == 0) {
      cache->trim();
    } else {
      budget.reclaim(unlimited);
    }
    EXPECT_EQ(resident_of_free(), bytes{});
    EXPECT_LE(cache->stats().charged, charged);
    EXPECT_EQ(cache->stats().objects_built, 60U);
    expect_all_kept();
    cache->audit();
    std::vector<void*> again(free.size());
    ASSERT_EQ(cache->get_many(again.data(), again.size()), again.size());
    for (void* each : again) use_scratch(each, 2);
    cache->put_many(again.data(), again.size());
  }
  // A want that an empty slab meets.
  put_what_is_out();
  const std::uint64_t built = cache->stats().objects_built;
  const bytes given_back = cache->stats().scratch_given_back;
  EXPECT_GT(cache->trim(bytes{1}), bytes{});
  EXPECT_EQ(cache->stats().scratch_given_back, given_back);
  EXPECT_GT(cache->stats().objects_built, built / 2);
}

// The reservation stays built, and costs its records' pages only.
TEST_F(RawCacheScratchTest, ReservedObjectsLoseTheirScratchToo) {
  ASSERT_TRUE(cache->set_reservation(12));
  use_and_put(12);
  put_what_is_out();
  for (int round = 0; round < 3; ++round) keep();
  EXPECT_GE(cache->stats().objects_built, 12U);
  EXPECT_EQ(resident_of_free(), bytes{});
}

TEST_F(RawCacheScratchTest, WhatTheSystemDoesNotTakeStaysAndIsTriedAfterTheNextUse) {
  use_and_put(30);
  os::fault::arm(os::call::advise, 1, EAGAIN, true);
  cache->trim();
  EXPECT_TRUE(os::fault::fired());
  os::fault::disarm();
  EXPECT_EQ(resident_of_free(), bytes{2 * page_size} * free.size());
  EXPECT_EQ(cache->stats().scratch_given_back, bytes{});
  EXPECT_EQ(cache->stats().scratch_used_most, bytes{2 * page_size});
  cache->audit();
  for (int round = 0; round < 3; ++round) keep();
  EXPECT_EQ(resident_of_free(), bytes{2 * page_size} * free.size());
  std::vector<void*> again(free.size());
  ASSERT_EQ(cache->get_many(again.data(), again.size()), again.size());
  for (void* each : again) EXPECT_EQ(scratch_of(each)[scratch_size - 1], 's');
  cache->put_many(again.data(), again.size());
  cache->trim();
  EXPECT_EQ(resident_of_free(), bytes{});
  put_what_is_out();
}

TEST_F(RawCacheScratchTest, ASystemThatDoesNotSayWhatIsResidentIsGivenAll) {
  use_and_put(30);
  os::fault::arm(os::call::residency, 1, EAGAIN, true);
  cache->trim();
  EXPECT_EQ(cache->measure_scratch(), bytes{});
  os::fault::disarm();
  EXPECT_EQ(resident_of_free(), bytes{});
  EXPECT_EQ(cache->stats().scratch_given_back, bytes{}) << "as far as known";
  expect_all_kept();
  put_what_is_out();
}

TEST_F(RawCacheScratchTest, TheMostUsedIsSeenInUseOnTheWayBackAndAtTheEnd) {
  void* one = *cache->get();
  EXPECT_EQ(cache->measure_scratch(), bytes{});
  use_scratch(one, 1);
  EXPECT_EQ(cache->stats().scratch_used_most, bytes{}) << "nobody has looked";
  EXPECT_EQ(cache->measure_scratch(), bytes{page_size}) << "in use";
  EXPECT_EQ(cache->stats().scratch_used_most, bytes{page_size});
  use_scratch(one, 2);
  cache->put(one);
  EXPECT_GT(cache->trim(), bytes{});
  EXPECT_EQ(cache->stats().objects_built, 0U);
  EXPECT_EQ(cache->stats().scratch_used_most, bytes{2 * page_size}) << "at its end";
  one = *cache->get();
  EXPECT_EQ(resident(one), bytes{});
  scratch_of(one)[0] = 1;  // a hole above, as of a large frame
  keep();
  EXPECT_EQ(cache->stats().scratch_used_most, bytes{3 * page_size}) << "by the keeper";
  cache->put(one);
  cache->trim();
  EXPECT_EQ(cache->measure_scratch(), bytes{3 * page_size}) << "the most ever";
  EXPECT_EQ(tests::stat_value("object_cache/scratch", "scratch_used_most_bytes"), 3 * page_size);
  EXPECT_EQ(tests::stat_value("object_cache/scratch", "scratch_given_back_bytes"), 0U) << "whole slabs went";
}

TEST_F(RawCacheScratchTest, ACacheWithoutScratchShowsAndGivesNone) {
  raw_cache::options plain = options_for(budget);
  plain.scratch = {};
  const auto other = raw_cache::create("plain", plain);
  ASSERT_TRUE(other);
  EXPECT_FALSE(tests::stat_value("object_cache/plain", "scratch_used_most_bytes"));
  void* one = *(*other)->get();
  use_scratch(one, 3);
  EXPECT_EQ((*other)->measure_scratch(), bytes{});
  (*other)->put(one);
}

TEST_F(RawCacheScratchTest, OptionsThatMakeNoSenseAreRefused) {
  const auto error_of = [&](std::size_t alignment, std::size_t offset, std::size_t length) {
    raw_cache::options wrong = options_for(budget);
    wrong.alignment = alignment;
    wrong.scratch = {.offset = offset, .length = length};
    return raw_cache::create("wrong", wrong).error();
  };
  EXPECT_EQ(error_of(64, page_size, page_size), error_from(EINVAL)) << "not aligned to pages";
  EXPECT_EQ(error_of(page_size, 100, page_size), error_from(EINVAL));
  EXPECT_EQ(error_of(page_size, 0, page_size + 1), error_from(EINVAL));
  EXPECT_EQ(error_of(page_size, page_size, object_pages * page_size), error_from(EINVAL)) << "past the end";
  EXPECT_EQ(error_of(page_size, SIZE_MAX & ~(page_size - 1), page_size), error_from(EINVAL));
  EXPECT_FALSE(error_of(page_size, 0, object_pages * page_size));
}

// What somebody has keeps what they wrote, whatever is given back beside it.
TEST_F(RawCacheScratchTest, ThreadsKeepWhatTheyWriteWhileOthersGiveBack) {
  std::atomic<bool> stop{false};
  std::thread giver([&] {
    for (int i = 0; !stop; ++i) {
      if (i % 2 == 0) {
        cache->trim();
      } else {
        keep();
      }
    }
  });
  std::vector<std::thread> users;
  for (char mark = 'a'; mark < 'd'; ++mark) {
    users.emplace_back([&, mark] {
      std::array<void*, 20> mine{};
      for (int round = 0; round < 300; ++round) {
        ASSERT_EQ(cache->get_many(mine.data(), mine.size()), mine.size());
        for (void* each : mine) {
          expect_record(each);
          for (std::size_t page = 0; page < scratch_size; page += page_size) scratch_of(each)[page] = mark;
        }
        // One goes back and another comes, so that slabs change beside those that stay.
        for (void*& each : mine) {
          cache->put(each);
          each = *cache->get();
          scratch_of(each)[0] = mark;
        }
        std::this_thread::yield();
        for (void* each : mine) EXPECT_EQ(scratch_of(each)[0], mark);
        cache->put_many(mine.data(), mine.size());
      }
    });
  }
  for (std::thread& each : users) each.join();
  stop = true;
  giver.join();
  cache->audit();
  EXPECT_EQ(cache->stats().objects_out, 0U);
}

}  // namespace
}  // namespace larder

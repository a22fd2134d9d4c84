// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory_resource>
#include <new>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_resource.h>

#include "base/atomic.h"
#include "os/fault.h"
#include "tests/support/eventually.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

bool is_aligned(const void* memory, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(memory) % alignment == 0;
}

TEST(SizeClassesTest, EachRequestGetsTheSmallestClassThatServesIt) {
  for (std::size_t alignment = 1; alignment <= size_classes::alignment_max; alignment *= 2) {
    std::size_t smallest = 0;  // which the requests' sizes, rising, push up
    for (std::size_t size = 0; size <= size_classes::size_max; ++size) {
      while (size_classes::size_of(smallest) < size || size_classes::alignment_of(smallest) < alignment) ++smallest;
      ASSERT_EQ(size_classes::number_for(size, alignment), smallest) << size << " bytes aligned to " << alignment;
    }
  }
}

TEST(SizeClassesTest, WasteIsLessThanEightBytesOrOnePartInNine) {
  for (std::size_t size = 1; size <= size_classes::size_max; ++size) {
    const std::size_t given = size_classes::size_of(size_classes::number_for(size, 1));
    ASSERT_GE(given, size);
    ASSERT_TRUE(given - size < 8 || (given - size) * 9 < given) << size << " bytes in " << given;
  }
}

TEST(SizeClassesTest, WhatNoClassServesHasNone) {
  EXPECT_EQ(size_classes::number_for(size_classes::size_max + 1, 1), size_classes::count);
  EXPECT_EQ(size_classes::number_for(8, 2 * size_classes::alignment_max), size_classes::count);
  EXPECT_EQ(size_classes::number_for(~std::size_t{0}, 16), size_classes::count);
  EXPECT_EQ(size_classes::size_of(size_classes::count - 1), size_classes::size_max);
}

class MemoryResourceTest : public testing::Test {
 protected:
  ~MemoryResourceTest() override { EXPECT_EQ(budget.used(), bytes{}); }

  const tests::keeper_at_rest at_rest;
  memory_budget budget{"test"};
};

TEST_F(MemoryResourceTest, EachSizeIsServedAtEachAlignment) {
  memory_resource memory("sizes", {.budget = &budget});
  struct piece {
    void* start;
    std::size_t size, alignment;
  };
  std::vector<piece> pieces;
  for (const std::size_t size :
       {0U, 1U, 8U, 9U, 24U, 100U, 128U, 129U, 1000U, 4096U, 5000U, 32'768U, 32'769U, 100'000U}) {
    for (std::size_t alignment = 1; alignment <= 64 * page_size; alignment *= 2) {
      void* start = memory.allocate(size, alignment);
      ASSERT_TRUE(is_aligned(start, alignment)) << size << " bytes aligned to " << alignment;
      std::memset(start, static_cast<int>(pieces.size()), size);
      pieces.push_back({start, size, alignment});
    }
  }
  memory.audit();
  for (std::size_t number = 0; number < pieces.size(); ++number) {
    const auto& [start, size, alignment] = pieces[number];
    const std::vector<unsigned char> expected(size, static_cast<unsigned char>(number));
    EXPECT_TRUE(size == 0 || std::memcmp(start, expected.data(), size) == 0) << "overlaps another";
    memory.deallocate(start, size, alignment);
  }
  EXPECT_EQ(memory.stats().bytes_out, bytes{});
  memory.audit();
}

TEST_F(MemoryResourceTest, EqualSizesShareACacheWhichIsMadeWhenFirstNeeded) {
  memory_resource memory("classes", {.budget = &budget});
  EXPECT_EQ(budget.used(), bytes{});
  EXPECT_EQ(memory.cache_for(40, 8), nullptr);
  void* first = memory.allocate(40, 8);
  void* second = memory.allocate(33, 8);
  void* other = memory.allocate(41, 8);
  EXPECT_EQ(memory.cache_for(40, 8)->stats().objects_out, 2U);
  EXPECT_EQ(memory.cache_for(48, 8)->stats().objects_out, 1U);
  EXPECT_EQ(memory.stats().caches, 2U);
  EXPECT_EQ(memory.stats().bytes_out, 128_B);
  EXPECT_EQ(memory.stats().charged, budget.used());
  EXPECT_EQ(memory.cache_for(40, 8)->name(), "classes/40");
  memory.deallocate(first, 40, 8);
  memory.deallocate(second, 33, 8);
  memory.deallocate(other, 41, 8);
}

TEST_F(MemoryResourceTest, ASpanIsChargedToThePageAndReleasedAtOnce) {
  memory_resource memory("spans", {.budget = &budget});
  void* span = memory.allocate(100'000, 8);
  EXPECT_EQ(budget.used(), 100_KiB);
  EXPECT_EQ(memory.stats().spans_out, 1U);
  EXPECT_EQ(memory.stats().bytes_out, 100_KiB);
  EXPECT_EQ(memory.stats().caches, 0U);
  memory.deallocate(span, 100'000, 8);
  EXPECT_EQ(budget.used(), bytes{});
  EXPECT_EQ(memory.stats().spans_out, 0U);
}

TEST_F(MemoryResourceTest, StandardContainersRunOnCaches) {
  memory_resource memory("containers", {.budget = &budget});
  {
    std::pmr::list<std::uint64_t> list(1000, 7, &memory);
    EXPECT_EQ(memory.cache_for(sizeof(void*) * 2 + sizeof(std::uint64_t), 8)->stats().objects_out, 1000U);
    std::pmr::map<int, int> map(&memory);
    for (int i = 0; i < 1000; ++i) map[i] = i;
    EXPECT_EQ(memory.stats().objects_out, 2000U);
    std::pmr::unordered_map<int, std::pmr::string> strings(&memory);
    for (int i = 0; i < 1000; ++i)
      strings[i] = "long enough to be outside of the string: " + std::pmr::string(std::to_string(i));
    EXPECT_GE(memory.stats().objects_out, 4000U);
    std::pmr::vector<int> vector(100'000, 1, &memory);
    EXPECT_EQ(memory.stats().spans_out, 1U);
    EXPECT_EQ(map.at(999), 999);
    EXPECT_STREQ(strings.at(17).c_str(), "long enough to be outside of the string: 17");
    memory.audit();
  }
  const memory_resource::statistics now = memory.stats();
  EXPECT_EQ(now.objects_out + now.spans_out, 0U);
  EXPECT_EQ(now.gets, now.puts);
  EXPECT_GT(memory.trim(), 64_KiB);
  EXPECT_EQ(memory.trim(), bytes{});
  EXPECT_EQ(memory.stats().charged, budget.used());
}

TEST_F(MemoryResourceTest, TheLimitMakesBadAllocAndIsNotExceeded) {
  memory_budget own("own", {.limit = 512_KiB}, &budget);
  memory_resource memory("limited", {.budget = &own});
  {
    std::pmr::list<std::uint64_t> list(&memory);
    EXPECT_THROW(for (;;) list.push_back(1), std::bad_alloc);
    EXPECT_GT(list.size(), std::size_t{512} * 1024 / 24 / 4 * 3);
    EXPECT_THROW((void)memory.allocate(100'000), std::bad_alloc);
    EXPECT_LE(own.peak(), own.limit());
    memory.audit();
  }
  // All of it serves another size now: caches give to each other before anyone fails (KF-15).
  std::pmr::list<std::array<std::uint64_t, 40>> larger(&memory);
  EXPECT_THROW(for (;;) larger.emplace_back(), std::bad_alloc);
  EXPECT_GT(larger.size(), std::size_t{512} * 1024 / 352 / 4 * 3);
  larger.clear();
  void* span = memory.allocate(400'000);
  memory.deallocate(span, 400'000);
  EXPECT_LE(own.peak(), own.limit());
}

TEST_F(MemoryResourceTest, SizesAndAlignmentsThatCannotBeAreRefused) {
  memory_resource memory("absurd", {.budget = &budget});
  EXPECT_THROW((void)memory.allocate(~std::size_t{0}, 8), std::bad_alloc);
  EXPECT_THROW((void)memory.allocate(std::size_t{1} << 47, 8), std::bad_alloc);
  for (const std::size_t alignment : {std::size_t{1} << 63, std::size_t{24}, std::size_t{0}}) {
    EXPECT_THROW((void)memory.allocate(8, alignment), std::bad_alloc) << "aligned to " << alignment;
  }
}

TEST_F(MemoryResourceTest, OneThatWaitsGetsTheMemoryThatOthersGiveBack) {
  for (const std::size_t size : {std::size_t{64}, std::size_t{200'000}}) {
    memory_budget own("own", {.limit = 256_KiB}, &budget);
    memory_resource memory("patient", {.budget = &own, .wait_for_memory = true});
    void* hog = memory.allocate(220'000);
    ASSERT_TRUE(own.try_charge(own.limit() - own.used()));  // so that not even a cache can be made
    const bytes rest = own.used() - round_up_to_pages(220'000_B);
    base::atomic<bool> served{false};
    std::thread waiter([&] {
      void* memory_for_me = memory.allocate(size);
      served = true;
      memory.deallocate(memory_for_me, size);
    });
    EXPECT_TRUE(tests::eventually([&] { return own.has_waiters(); }));
    EXPECT_FALSE(served);
    memory.deallocate(hog, 220'000);
    waiter.join();
    EXPECT_TRUE(served);
    own.release(rest);
  }
}

TEST_F(MemoryResourceTest, OneThatWaitsFailsAtOnceWhereNoMemoryWillEverDo) {
  memory_budget own("own", {.limit = 64_KiB}, &budget);
  memory_resource memory("hopeless", {.budget = &own, .wait_for_memory = true});
  EXPECT_THROW((void)memory.allocate(100'000), std::bad_alloc);
  memory_budget tiny("tiny", {.limit = 1_KiB}, &budget);
  memory_resource none("none", {.budget = &tiny, .wait_for_memory = true});
  EXPECT_THROW((void)none.allocate(8), std::bad_alloc);
  EXPECT_EQ(own.used() + tiny.used(), bytes{});
}

// KF-57: who gives memory back may ask for a little, but neither waits nor reclaims.
TEST_F(MemoryResourceTest, InsideAReclaimerAllocationFailsRatherThanReclaimsAgain) {
  struct asking_reclaimer final : reclaimer {
    bytes reclaim(bytes) override {
      for (const std::size_t size : {24U, 500U, 100'000U}) {
        try {
          memory->deallocate(memory->allocate(size), size);
          ++served;
        } catch (const std::bad_alloc&) {
          ++refused;
        }
      }
      return {};
    }
    memory_resource* memory = nullptr;
    int served = 0;
    int refused = 0;
  } asking;
  memory_budget own("own", {.limit = 1_MiB}, &budget);
  memory_resource memory("asked", {.budget = &own});
  asking.memory = &memory;
  own.add_reclaimer(asking, reclaim_stage::user);
  void* kept = memory.allocate(24);
  (void)own.reclaim(1_MiB);
  EXPECT_EQ(asking.served, 2);  // the class that is there already, and the span, for which there is room
  EXPECT_EQ(asking.refused, 1);
  const bytes rest = own.limit() - own.used();
  ASSERT_TRUE(own.try_charge(rest));
  (void)own.reclaim(1_MiB);
  EXPECT_EQ(asking.served, 3);
  EXPECT_EQ(asking.refused, 3);
  own.release(rest);
  memory.deallocate(kept, 24);
  own.remove_reclaimer(asking);
}

// KF-48: each mapping fails, once and for ever, and nothing stays charged.
TEST_F(MemoryResourceTest, FaultsInMappingLeaveNothingCharged) {
  for (const bool from_then_on : {false, true}) {
    bool failed = true;
    for (std::uint64_t nth = 1; failed; ++nth) {
      {
        memory_resource memory("unlucky", {.budget = &budget});
        std::pmr::list<std::uint64_t> small(&memory);
        std::pmr::list<std::array<char, 3000>> large(&memory);
        std::vector<void*> spans;
        os::fault::arm(os::call::map, nth, ENOMEM, from_then_on);
        for (std::uint64_t i = 0; i < 200; ++i) {
          try {
            small.push_back(i);
            large.emplace_back();
            if (i % 40 == 0) spans.push_back(memory.allocate(50'000, 16'384));
          } catch (const std::bad_alloc&) {
            if (!from_then_on) --i;  // it failed once: the next goes through
          }
        }
        failed = os::fault::fired();
        os::fault::disarm();
        memory.audit();
        EXPECT_EQ(memory.stats().charged, budget.used());
        EXPECT_EQ(memory.stats().objects_out, small.size() + large.size());
        for (void* span : spans) memory.deallocate(span, 50'000, 16'384);
      }
      ASSERT_EQ(budget.used(), bytes{}) << "mapping number " << nth;
    }
  }
}

TEST_F(MemoryResourceTest, OneThatWaitsDoesNotWaitForASystemWithoutMemory) {
  for (std::uint64_t nth = 1; nth <= 5; ++nth) {
    memory_resource memory("patient", {.budget = &budget, .wait_for_memory = true});
    os::fault::arm(os::call::map, nth, ENOMEM, true);
    std::vector<void*> objects;
    EXPECT_THROW(for (;;) objects.push_back(memory.allocate(3000)), std::bad_alloc);
    EXPECT_THROW((void)memory.allocate(50'000), std::bad_alloc);
    os::fault::disarm();
    memory.audit();
    EXPECT_EQ(memory.stats().charged, budget.used());
    for (void* object : objects) memory.deallocate(object, 3000);
  }
}

// KF-3
TEST_F(MemoryResourceTest, FirstUseFromManyThreadsAtOnceMakesOneCacheAClass) {
  for (int round = 0; round < 50; ++round) {
    memory_resource memory("fresh", {.budget = &budget});
    base::atomic<int> ready{0};
    std::vector<std::thread> threads;
    std::vector<void*> given(4);
    for (std::size_t i = 0; i < given.size(); ++i) {
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < 4) std::this_thread::yield();
        given[i] = memory.allocate(64);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(memory.stats().caches, 1U);
    EXPECT_EQ(memory.stats().objects_out, 4U);
    EXPECT_EQ(memory.stats().charged, budget.used());
    memory.audit();
    for (void* object : given) memory.deallocate(object, 64);
  }
}

TEST_F(MemoryResourceTest, ThreadsUseOneResourceTogether) {
  memory_budget own("own", {.limit = 2_MiB}, &budget);
  memory_resource memory("shared", {.budget = &own});
  constexpr int thread_count = 4;
  // What one thread allocates, the next frees.
  std::vector<std::pmr::list<std::pmr::string>> lists;
  for (int i = 0; i < thread_count; ++i) lists.emplace_back(&memory);
  for (int round = 0; round < 10; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < thread_count; ++i) {
      threads.emplace_back([&, i] {
        auto& list = lists[static_cast<std::size_t>((i + round) % thread_count)];
        for (const std::pmr::string& text : list) EXPECT_EQ(text.find_first_not_of(text.front()), text.npos);
        list.clear();
        try {
          for (std::size_t size = 1; size < 400; ++size) {
            list.emplace_back(size, static_cast<char>('a' + i));
            if (size % 3 == 0) list.pop_front();
            if (size % 100 == 0) memory.trim(16_KiB);
          }
          std::pmr::vector<char> span(static_cast<std::size_t>(i + 1) * 40'000, 'x', &memory);
        } catch (const std::bad_alloc&) {
          // There may be no room; what there is stays whole.
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    memory.audit();
    EXPECT_EQ(memory.stats().charged, own.used());
  }
  EXPECT_GT(memory.stats().gets, 10'000U);
  EXPECT_LE(own.peak(), own.limit());
}

TEST_F(MemoryResourceTest, OnlyItselfIsEqual) {
  memory_resource one("one", {.budget = &budget});
  memory_resource two("two", {.budget = &budget});
  EXPECT_TRUE(one.is_equal(one));
  EXPECT_FALSE(one.is_equal(two));
  EXPECT_FALSE(one.is_equal(*std::pmr::new_delete_resource()));
}

TEST_F(MemoryResourceTest, FiguresAreInTheStatistics) {
  memory_resource memory("shown", {.budget = &budget});
  void* object = memory.allocate(64);
  void* span = memory.allocate(40'000);
  EXPECT_EQ(tests::stat_value("memory_resource/shown", "objects_out"), 1U);
  EXPECT_EQ(tests::stat_value("memory_resource/shown", "spans_out"), 1U);
  EXPECT_EQ(tests::stat_value("memory_resource/shown", "caches"), 1U);
  EXPECT_EQ(tests::stat_value("memory_resource/shown", "bytes_out"), 64U + 40'960U);
  EXPECT_EQ(tests::stat_value("memory_resource/shown", "charged_bytes"), budget.used().count);
  EXPECT_EQ(tests::stat_value("object_cache/shown/64", "objects_out"), 1U);
  memory.deallocate(object, 64);
  memory.deallocate(span, 40'000);
}

TEST_F(MemoryResourceTest, TheProcessHasOneOnItsBudget) {
  EXPECT_EQ(&memory_resource::process(), &memory_resource::process());
  EXPECT_EQ(&memory_resource::process().budget(), &memory_budget::process());
  EXPECT_EQ(memory_resource::process().name(), "process");
}

class MemoryResourceDeathTest : public testing::Test {
 protected:
  // A new process, since this one may have threads: the keeper.
  MemoryResourceDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  ~MemoryResourceDeathTest() override { GTEST_FLAG_SET(death_test_style, style_before_); }

 private:
  const std::string style_before_ = GTEST_FLAG_GET(death_test_style);
};

// Made before the resource is first used, destroyed after everything that came later.
TEST_F(MemoryResourceDeathTest, TheProcessesOneServesStaticObjectsToTheirEnd) {
  struct late_user {
    ~late_user() {
      const std::pmr::list<int> list(100, 7, &memory_resource::process());
      if (list.size() != 100) std::_Exit(1);
      std::fputs("served at the end\n", stderr);
    }
  };
  EXPECT_EXIT(
      {
        static const late_user last;
        static const std::pmr::list<int> kept(100, 7, &memory_resource::process());
        std::exit(0);
      },
      testing::ExitedWithCode(0), "served at the end");
}

// KF-5
TEST_F(MemoryResourceDeathTest, DestroyingOneWithMemoryOutNamesItAndTheCounts) {
  EXPECT_DEATH(
      {
        memory_resource memory("abandoned");
        (void)memory.allocate(64);
        (void)memory.allocate(2000);
        (void)memory.allocate(40'000);
      },
      "memory resource \"abandoned\" destroyed while 2 objects and 1 spans are out \\(43072 bytes\\)");
}

TEST_F(MemoryResourceDeathTest, MisuseIsFound) {
  memory_resource memory("strict");
  char foreign[64];
  EXPECT_DEATH(memory.deallocate(foreign, 64), "memory resource \"strict\": .* comes back for a size never given");
  EXPECT_DEATH(memory.deallocate(foreign, 40'000), "memory resource \"strict\": .* of 40000 bytes comes back");
}

}  // namespace
}  // namespace larder

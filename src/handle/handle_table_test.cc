// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/handle_table.h>
#include <larder/stats.h>

#include "base/atomic.h"
#include "os/fault.h"
#include "tests/support/one_cpu.h"

namespace larder {
namespace {

constexpr std::size_t entries_per_frame = 256;

class HandleTableTest : public testing::Test {
 protected:
  memory_budget budget{"test"};
  int numbers[2000] = {};

  ~HandleTableTest() override { EXPECT_EQ(budget.used(), bytes{}); }
};

TEST_F(HandleTableTest, FindsWhatWasInsertedUntilItIsErased) {
  handle_table<int> table("small", {.limit = 10, .budget = &budget});
  const handle first = table.insert(&numbers[0]);
  const handle second = table.insert(&numbers[1]);
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_NE(first, second);
  EXPECT_EQ(table.find(first), &numbers[0]);
  EXPECT_EQ(table.find(second), &numbers[1]);
  EXPECT_EQ(table.size(), 2U);
  EXPECT_TRUE(table.erase(first));
  EXPECT_EQ(table.find(first), nullptr);
  EXPECT_EQ(table.take(second), &numbers[1]);
  EXPECT_EQ(table.take(second), nullptr);
  EXPECT_EQ(table.size(), 0U);
  table.audit();
}

// KF-27
TEST_F(HandleTableTest, EraseTwiceAndEraseStaleAreFalseAndCountedOnce) {
  handle_table<int> table("small", {.limit = 1, .budget = &budget});
  const handle stale = table.insert(&numbers[0]);
  EXPECT_TRUE(table.erase(stale));
  EXPECT_FALSE(table.erase(stale));
  const handle fresh = table.insert(&numbers[1]);
  EXPECT_FALSE(table.erase(stale));
  EXPECT_EQ(table.find(stale), nullptr);
  EXPECT_EQ(table.find(fresh), &numbers[1]);
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.stats().erases, 1U);
  table.audit();
}

TEST_F(HandleTableTest, MadeUpHandlesFindNothing) {
  handle_table<int> table("guessed", {.limit = 300, .budget = &budget});
  std::set<std::uint32_t> issued;
  for (int i = 0; i < 150; ++i) issued.insert(table.insert(&numbers[i]).value);
  EXPECT_EQ(table.find(handle{}), nullptr);
  EXPECT_FALSE(table.erase(handle{}));
  std::mt19937 random(1);
  for (int tries = 0; tries < 100'000; ++tries) {
    // Often near to a real one: one bit changed.
    auto guess = static_cast<std::uint32_t>(random());
    if (tries % 2 == 0) guess = *issued.begin() ^ (std::uint32_t{1} << (guess % 32));
    EXPECT_EQ(table.find(handle{guess}) != nullptr, issued.count(guess) == 1) << guess;
  }
  for (const std::uint32_t extreme : {1U, 0x7fffffffU, 0x80000000U, 0xffffffffU, 0xfffffffeU}) {
    EXPECT_EQ(table.find(handle{extreme}) != nullptr, issued.count(extreme) == 1);
  }
}

TEST_F(HandleTableTest, HandlesOfAnotherTableWithOtherBitsFindNothing) {
  handle_table<int> small("small", {.limit = 2, .budget = &budget});
  handle_table<int> large("large", {.limit = 1 << 20, .budget = &budget});
  EXPECT_EQ(small.find(large.insert(&numbers[0])), nullptr);
  EXPECT_EQ(large.find(small.insert(&numbers[0])), nullptr);
}

// KF-25, KF-20
TEST_F(HandleTableTest, CapacityIsTheLimitExactly) {
  for (const std::size_t limit : {1U, 2U, 3U, 255U, 256U, 257U, 512U, 1000U}) {
    handle_table<int> table("exact", {.limit = limit, .budget = &budget});
    std::vector<handle> handles;
    for (std::size_t i = 0; i < limit; ++i) {
      handles.push_back(table.insert(&numbers[i]));
      ASSERT_TRUE(handles.back()) << i << " of " << limit;
    }
    EXPECT_FALSE(table.insert(&numbers[0]));
    EXPECT_FALSE(table.insert(&numbers[0]));
    EXPECT_EQ(table.stats().insert_failures, 2U);
    EXPECT_EQ(table.size(), limit);
    EXPECT_TRUE(table.erase(handles[limit / 2]));
    EXPECT_TRUE(table.insert(&numbers[0]));
    EXPECT_FALSE(table.insert(&numbers[0]));
    table.audit();
  }
}

TEST_F(HandleTableTest, LimitMaxLeavesAGeneration) {
  handle_table<int> table("largest", {.limit = raw_handle_table::limit_max, .budget = &budget});
  const handle only = table.insert(&numbers[0]);
  EXPECT_EQ(table.find(only), &numbers[0]);
  EXPECT_TRUE(table.erase(only));
  table.audit();
}

TEST_F(HandleTableTest, GenerationWrapsWithoutHandleZeroOrAnEarlyRepeat) {
  const tests::stays_on_one_cpu stays;
  // 24 bits of index leave 8 of generation; entries circulate through a CPU's ring.
  handle_table<int> table("wraps", {.limit = raw_handle_table::limit_max, .budget = &budget});
  std::map<std::uint32_t, int> last_issued;
  constexpr int rounds = 3 * 255 * static_cast<int>(entries_per_frame);
  for (int round = 0; round < rounds; ++round) {
    const handle made = table.insert(&numbers[0]);
    ASSERT_TRUE(made);
    const auto [before, fresh] = last_issued.try_emplace(made.value, round);
    if (!fresh) {
      // Those of a CPU's ring, which begins half full, take turns.
      ASSERT_GE(round - before->second, 255 * static_cast<int>(entries_per_frame) / 2);
      before->second = round;
    }
    ASSERT_TRUE(table.erase(made));
    ASSERT_EQ(table.find(made), nullptr);
  }
  EXPECT_EQ(table.stats().frames, 1U);
  table.audit();
}

// What a table of 1000 costs before it has an entry, which depends on the number of CPUs.
bytes cost_of_an_empty_table() {
  memory_budget probe("probe");
  const handle_table<int> table("empty", {.limit = 1000, .budget = &probe});
  return probe.used();
}

TEST_F(HandleTableTest, GrowsByFramesAndChargesThem) {
  const tests::stays_on_one_cpu stays;
  handle_table<int> table("grows", {.limit = 1000, .budget = &budget});
  const bytes empty = budget.used();
  EXPECT_EQ(empty, cost_of_an_empty_table());
  for (std::size_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(table.insert(&numbers[i]));
    EXPECT_EQ(budget.used(), empty + 4_KiB * (i / entries_per_frame + 1));
  }
  EXPECT_EQ(table.stats().charged, budget.used());
}

TEST_F(HandleTableTest, InsertGivesNoneWhenTheBudgetIsFullAndWorksWhenThereIsRoom) {
  const tests::stays_on_one_cpu stays;
  memory_budget tight("tight", {.limit = cost_of_an_empty_table() + 6_KiB}, &budget);
  handle_table<int> table("tight", {.limit = 1000, .budget = &tight});
  std::vector<handle> handles;
  while (const handle made = table.insert(&numbers[handles.size()])) handles.push_back(made);
  EXPECT_EQ(handles.size(), entries_per_frame);
  table.audit();
  EXPECT_TRUE(table.erase(handles.front()));
  EXPECT_TRUE(table.insert(&numbers[0]));
}

// KF-15
TEST_F(HandleTableTest, InsertReclaimsBeforeItFails) {
  const tests::stays_on_one_cpu stays;
  memory_budget tight("tight", {.limit = cost_of_an_empty_table() * 2 + 6_KiB}, &budget);
  handle_table<int> other("other", {.limit = 1000, .budget = &tight});
  EXPECT_TRUE(other.erase(other.insert(&numbers[0])));
  EXPECT_EQ(other.stats().frames, 1U);
  handle_table<int> table("short", {.limit = 1000, .budget = &tight});
  EXPECT_TRUE(table.insert(&numbers[0]));
  EXPECT_EQ(other.stats().frames, 0U);
  EXPECT_TRUE(table.insert(&numbers[0]));
  EXPECT_FALSE(other.insert(&numbers[0]));
  other.audit();
  table.audit();
}

TEST_F(HandleTableTest, ReservedEntriesNeedNoMemoryLater) {
  const tests::stays_on_one_cpu stays;
  memory_budget tight("tight", {.limit = cost_of_an_empty_table() + 9_KiB}, &budget);
  handle_table<int> table("reserved", {.limit = 1000, .reservation = 300, .budget = &tight});
  EXPECT_EQ(table.stats().frames, 2U);
  EXPECT_EQ(table.shrink(), 0U);
  const bytes rest = tight.limit() - tight.used();
  ASSERT_TRUE(tight.try_charge(rest));
  for (std::size_t i = 0; i < 300; ++i) ASSERT_TRUE(table.insert(&numbers[i]));
  tight.release(rest);
  EXPECT_THROW(handle_table<int>("too large", {.limit = 1000, .reservation = 300, .budget = &tight}), std::bad_alloc);
}

// KF-48
TEST_F(HandleTableTest, AFailedMappingLeavesTheBudgetAsItWas) {
  os::fault::arm(os::call::map, 1, ENOMEM);
  EXPECT_THROW(handle_table<int>("unlucky", {.limit = 1000, .budget = &budget}), std::bad_alloc);
  EXPECT_TRUE(os::fault::fired());
  os::fault::disarm();
  EXPECT_EQ(budget.used(), bytes{});
}

TEST_F(HandleTableTest, ForEachSeesEachEntryAndMayUseTheTable) {
  handle_table<int> table("seen", {.limit = 1000, .budget = &budget});
  std::map<std::uint32_t, int*> expected;
  for (int i = 0; i < 600; ++i) {
    const handle made = table.insert(&numbers[i]);
    if (i % 3 == 0) {
      table.erase(made);
    } else {
      expected[made.value] = &numbers[i];
    }
  }
  std::map<std::uint32_t, int*> seen;
  table.for_each([&](handle which, int& number) {
    seen[which.value] = &number;
    EXPECT_TRUE(table.erase(which));
  });
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(table.size(), 0U);
  table.audit();
}

TEST_F(HandleTableTest, LawsHoldAfterEachStepOfARandomSequence) {
  for (const std::size_t limit : {1U, 7U, 300U}) {
    std::mt19937_64 random(limit);
    handle_table<int> table("model", {.limit = limit, .budget = &budget});
    std::map<std::uint32_t, int*> model;
    std::vector<std::uint32_t> stale;
    for (int step = 0; step < 5000; ++step) {
      if (random() % 2 == 0) {
        int* object = &numbers[random() % std::size(numbers)];
        const handle made = table.insert(object);
        ASSERT_EQ(static_cast<bool>(made), model.size() < limit);
        if (made) {
          ASSERT_TRUE(model.emplace(made.value, object).second);
        }
      } else if (!model.empty()) {
        const auto victim = std::next(model.begin(), static_cast<std::ptrdiff_t>(random() % model.size()));
        ASSERT_EQ(table.take(handle{victim->first}), victim->second);
        stale.push_back(victim->first);
        model.erase(victim);
      }
      if (!stale.empty()) {
        const std::uint32_t old = stale[random() % stale.size()];
        ASSERT_EQ(table.find(handle{old}) != nullptr, model.count(old) == 1);
      }
      for (const auto& [value, object] : model) ASSERT_EQ(table.find(handle{value}), object);
      ASSERT_EQ(table.size(), model.size());
      table.audit();
    }
  }
}

// KF-24: what a handle leads to is there before the handle is.
TEST_F(HandleTableTest, FindBesideInsertAndEraseGivesTheRightObjectOrNone) {
  struct object {
    base::atomic<std::uint32_t> inserted_as{0};
  };
  constexpr std::size_t slots = 600;
  std::vector<object> objects(slots);
  std::vector<base::atomic<std::uint32_t>> published(slots);
  handle_table<object> table("raced", {.limit = slots, .budget = &budget});
  base::atomic<bool> stop{false};
  base::atomic<std::uint64_t> found{0};

  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      std::mt19937 random(reader);
      while (!stop) {
        const std::size_t slot = random() % slots;
        const std::uint32_t value = published[slot];
        const object* seen = table.find(handle{value});
        if (seen == nullptr) continue;
        EXPECT_EQ(seen, &objects[slot]);
        ++found;
      }
    });
  }
  std::vector<std::thread> writers;
  for (std::size_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      std::mt19937 random(static_cast<unsigned>(writer));
      for (int round = 0; round < 50'000; ++round) {
        const std::size_t slot = random() % (slots / 2) * 2 + writer;
        if (const std::uint32_t value = published[slot]) {
          published[slot] = 0;
          ASSERT_TRUE(table.erase(handle{value}));
        } else {
          const handle made = table.insert(&objects[slot]);
          ASSERT_TRUE(made);
          published[slot] = made.value;
        }
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  while (found == 0) std::this_thread::yield();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  table.audit();
}

// The entry changes hands between the two looks of a find.
TEST_F(HandleTableTest, FindNeverGivesTheObjectOfAnEntrysNextUser) {
  handle_table<int> table("reused", {.limit = 1, .budget = &budget});
  base::atomic<std::uint32_t> latest{0};
  base::atomic<bool> stop{false};
  // One bit of index: generations follow each other by two. Odd ones are numbers[1].
  const auto expected = [&](std::uint32_t value) { return &numbers[value >> 1 & 1]; };
  std::uint32_t next = table.insert(&numbers[0]).value;
  ASSERT_TRUE(table.erase(handle{next}));
  std::thread reader([&] {
    while (!stop) {
      const std::uint32_t value = latest.load(base::memory_order_relaxed);
      for (int tries = 0; tries < 20; ++tries) {
        const int* seen = table.find(handle{value});
        if (seen != nullptr) {
          ASSERT_EQ(seen, expected(value));
        }
      }
    }
  });
  for (int round = 0; round < 1'000'000; ++round) {
    next += next + 2 < 2 ? 4 : 2;  // no generation 0
    const handle made = table.insert(expected(next));
    EXPECT_EQ(made.value, next);
    latest.store(made.value, base::memory_order_relaxed);
    EXPECT_TRUE(table.erase(made));
  }
  stop = true;
  reader.join();
}

TEST_F(HandleTableTest, OfManyErasersOfOneHandleOneWins) {
  handle_table<int> table("contended", {.limit = 10, .budget = &budget});
  for (int round = 0; round < 200; ++round) {
    const handle contended = table.insert(&numbers[0]);
    base::atomic<int> wins{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] { wins += table.erase(contended) ? 1 : 0; });
    }
    for (std::thread& each : threads) each.join();
    ASSERT_EQ(wins, 1);
  }
  EXPECT_EQ(table.stats().erases, 200U);
}

TEST_F(HandleTableTest, TableWithEntriesMayBeDestroyed) {
  {
    handle_table<int> table("forgotten", {.limit = 1000, .budget = &budget});
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(table.insert(&numbers[i]));
  }
  EXPECT_EQ(budget.used(), bytes{});
}

TEST_F(HandleTableTest, FiguresAreInTheStatistics) {
  handle_table<int> table("shown", {.limit = 12, .budget = &budget});
  ASSERT_TRUE(table.insert(&numbers[0]));
  std::map<std::string, std::uint64_t, std::less<>> shown;
  for_each_stat([&](const stat& each) {
    if (each.component == "handle_table/shown") shown[std::string(each.name)] = each.value;
  });
  EXPECT_EQ(shown["entries"], 1U);
  EXPECT_EQ(shown["limit"], 12U);
  EXPECT_EQ(shown["charged_bytes"], budget.used().count);
}

TEST(HandleTableDeathTest, ALimitOutOfRangeIsNamed) {
  EXPECT_DEATH(handle_table<int>("none", {.limit = 0}), "handle table \"none\": limit 0");
  EXPECT_DEATH(handle_table<int>("huge", {.limit = (1 << 24) + 1}), "a limit is from 1 to 16777216");
}

TEST(HandleTableDeathTest, InsertOfNullIsNamed) {
  handle_table<int> table("strict", {.limit = 1});
  EXPECT_DEATH((void)table.insert(nullptr), "handle table \"strict\": insert of null");
}

}  // namespace
}  // namespace larder

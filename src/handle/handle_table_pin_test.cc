// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <deque>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/handle_table.h>

#include "base/atomic.h"
#include "os/fault.h"

namespace larder {
namespace {

struct object {
  base::atomic<unsigned> released{0};
};

void count_release(void* context, void* released) {
  ++*static_cast<base::atomic<unsigned>*>(context);
  ++static_cast<object*>(released)->released;
}

class HandleTablePinTest : public testing::Test {
 protected:
  memory_budget budget{"test"};
  base::atomic<unsigned> releases{0};
  object objects[1000];
  handle_table<object> table{"pinned",
                             {.limit = 1000, .budget = &budget, .released = count_release, .context = &releases}};
};

TEST_F(HandleTablePinTest, AnErasedObjectIsReleasedAfterTheLastUnpin) {
  const handle made = table.insert(&objects[0]);
  pinned<object> first = table.find_pinned(made);
  pinned<object> second = table.find_pinned(made);
  ASSERT_EQ(first.get(), &objects[0]);
  EXPECT_TRUE(table.erase(made));
  EXPECT_FALSE(table.erase(made));
  EXPECT_EQ(table.find(made), nullptr);
  EXPECT_FALSE(table.find_pinned(made));
  EXPECT_EQ(releases, 0U);
  EXPECT_EQ(table.size(), 1U);
  table.audit();
  first.reset();
  EXPECT_EQ(releases, 0U);
  pinned<object> moved = std::move(second);
  EXPECT_FALSE(second);
  moved = pinned<object>();
  EXPECT_EQ(releases, 1U);
  EXPECT_EQ(objects[0].released, 1U);
  EXPECT_EQ(table.size(), 0U);
  table.audit();
}

TEST_F(HandleTablePinTest, AnObjectThatNobodyPinsIsReleasedByItsErase) {
  const handle made = table.insert(&objects[0]);
  EXPECT_TRUE(table.erase(made));
  EXPECT_EQ(objects[0].released, 1U);
}

TEST_F(HandleTablePinTest, UnpinnedAgainAnEntryIsAsBefore) {
  const handle made = table.insert(&objects[0]);
  table.find_pinned(made).reset();
  EXPECT_EQ(table.find(made), &objects[0]);
  EXPECT_EQ(releases, 0U);
  EXPECT_EQ(table.take(made), &objects[0]);
  EXPECT_EQ(releases, 0U);
}

TEST_F(HandleTablePinTest, TakeWaitsForTheLastUnpin) {
  const handle made = table.insert(&objects[0]);
  pinned<object> held = table.find_pinned(made);
  base::atomic<bool> taken{false};
  std::thread taker([&] {
    EXPECT_EQ(table.take(made), &objects[0]);
    taken = true;
  });
  while (table.find(made) != nullptr) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(taken);
  held.reset();
  taker.join();
  EXPECT_EQ(releases, 0U);
  EXPECT_EQ(table.size(), 0U);
  table.audit();
}

TEST_F(HandleTablePinTest, EveryObjectIsReleasedOnceHoweverManyPinAndErase) {
  std::vector<base::atomic<std::uint32_t>> names(64);
  base::atomic<unsigned> erased{0};
  std::deque<object> made_by[4];
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::size_t i = 0; i < 30'000; ++i) {
        base::atomic<std::uint32_t>& name = names[(i * 7 + thread) % names.size()];
        const handle which{name.load()};
        if (const pinned<object> held = table.find_pinned(which)) {
          ASSERT_EQ(held->released, 0U);
          if (i % 3 == 0 && table.erase(which)) ++erased;
          ASSERT_EQ(held->released, 0U);
        } else if (i % 5 == 0) {
          object& fresh = made_by[thread].emplace_back();
          const handle made = table.insert(&fresh);
          if (!made) continue;
          if (const handle old{name.exchange(made.value)}; table.erase(old)) {
            ++erased;
          }
        }
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(releases, erased);
  table.audit();
  unsigned released_once = 0;
  for (const std::deque<object>& made : made_by) {
    for (const object& each : made) {
      ASSERT_LE(each.released, 1U);
      released_once += each.released;
    }
  }
  EXPECT_EQ(released_once, erased);
}

TEST_F(HandleTablePinTest, UnpinOfWhatIsNotPinnedIsNamed) {
  raw_handle_table raw("raw", {.limit = 10, .budget = &budget});
  const handle made = raw.insert(this);
  EXPECT_DEATH(raw.unpin(made), "handle table \"raw\": unpin of handle 0x[0-9a-f]+, which is not pinned");
  EXPECT_TRUE(raw.erase(made));
  EXPECT_DEATH(raw.unpin(made), "which is not pinned");
  EXPECT_DEATH(raw.unpin(handle{}), "which is not pinned");
}

// KF-28
TEST_F(HandleTablePinTest, ShrinkGivesBackTheFramesThatHoldNothing) {
  handle_table<object> large("shrinks", {.limit = 10'000, .budget = &budget});
  const bytes empty = budget.used();
  std::vector<handle> made;
  for (int i = 0; i < 10'000; ++i) made.push_back(large.insert(&objects[i % 1000]));
  EXPECT_EQ(large.stats().frames, 40U);
  EXPECT_EQ(large.shrink(), 0U);
  for (std::size_t i = 1; i < made.size(); ++i) EXPECT_TRUE(large.erase(made[i]));
  EXPECT_EQ(large.shrink(), 39U);
  EXPECT_EQ(large.stats().frames, 1U);
  EXPECT_EQ(budget.used(), empty + 4_KiB);
  large.audit();
  EXPECT_EQ(large.find(made[0]), &objects[0]);
  for (std::size_t i = 1; i < made.size(); ++i) ASSERT_EQ(large.find(made[i]), nullptr);
  // The generations go on.
  std::set<std::uint32_t> before;
  for (const handle each : made) before.insert(each.value);
  for (int i = 1; i < 10'000; ++i) {
    const handle again = large.insert(&objects[0]);
    ASSERT_TRUE(again);
    ASSERT_EQ(before.count(again.value), 0U);
  }
  EXPECT_FALSE(large.insert(&objects[0]));
  large.audit();
}

TEST_F(HandleTablePinTest, AFrameThatTheSystemKeepsIsUsedOn) {
  EXPECT_TRUE(table.erase(table.insert(&objects[0])));
  os::fault::arm(os::call::advise, 1, ENOMEM);
  EXPECT_EQ(table.shrink(), 0U);
  os::fault::disarm();
  EXPECT_EQ(table.stats().frames, 1U);
  table.audit();
  EXPECT_TRUE(table.insert(&objects[0]));
}

// KF-15: the budget asks.
TEST_F(HandleTablePinTest, TheBudgetShrinksTables) {
  EXPECT_TRUE(table.erase(table.insert(&objects[0])));
  EXPECT_EQ(budget.reclaim(1_KiB), 4_KiB);
  EXPECT_EQ(table.stats().frames, 0U);
  EXPECT_EQ(budget.reclaim(1_KiB), 0_KiB);
  table.audit();
}

}  // namespace
}  // namespace larder

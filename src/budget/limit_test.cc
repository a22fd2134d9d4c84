// SPDX-License-Identifier: Apache-2.0
//
// Limits that change while they are in use.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "os/clock.h"
#include "tests/support/eventually.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::eventually;

TEST(LimitTest, HigherOneHasRoomAtOnce) {
  memory_budget budget("budget", {.limit = 100_B, .reserve = 10_B});
  ASSERT_TRUE(budget.try_charge(90_B));
  EXPECT_FALSE(budget.try_charge(1_B));
  ASSERT_TRUE(budget.set_limit(150_B));
  EXPECT_EQ(budget.limit(), 150_B);
  EXPECT_EQ(budget.wanted_limit(), 150_B);
  EXPECT_FALSE(budget.try_charge(51_B));
  EXPECT_TRUE(budget.try_charge(50_B));
  budget.release(140_B);
  budget.audit();
}

TEST(LimitTest, HigherOneServesWhoWaits) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(100_B));
  std::thread waiter([&] { EXPECT_TRUE(budget.charge(30_B)); });
  ASSERT_TRUE(eventually([&] { return budget.waits() == 1; }));
  ASSERT_TRUE(budget.set_limit(130_B));
  waiter.join();
  EXPECT_EQ(budget.used(), 130_B);
  budget.release(130_B);
}

TEST(LimitTest, LowerOneFollowsTheUseDownAndAdmitsNothingBefore) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(80_B));
  ASSERT_TRUE(budget.set_limit(50_B));
  EXPECT_EQ(budget.limit(), 80_B) << "what is free is taken at once";
  EXPECT_EQ(budget.wanted_limit(), 50_B);
  EXPECT_EQ(budget.used(), 80_B);
  EXPECT_TRUE(budget.has_waiters());
  budget.release(20_B);
  EXPECT_EQ(budget.limit(), 60_B);
  EXPECT_FALSE(budget.try_charge(1_B));
  budget.audit();
  budget.release(30_B);
  EXPECT_EQ(budget.limit(), 50_B);
  EXPECT_FALSE(budget.has_waiters());
  EXPECT_FALSE(budget.try_charge(21_B));
  EXPECT_TRUE(budget.try_charge(20_B));
  EXPECT_EQ(budget.used(), 50_B);
  EXPECT_EQ(budget.peak(), 80_B);
  budget.release(50_B);
  budget.audit();
}

TEST(LimitTest, LowerOneLeavesTheReserveToReclaimers) {
  memory_budget budget("budget", {.limit = 100_B, .reserve = 10_B});
  ASSERT_TRUE(budget.try_charge(80_B));
  ASSERT_TRUE(budget.set_limit(50_B));
  EXPECT_EQ(budget.limit(), 90_B);
  class needy final : public reclaimer {
   public:
    explicit needy(memory_budget& budget) : budget_(budget) {}
    bytes reclaim(bytes wanted) override {
      if (left_ == 0_B) return {};
      EXPECT_TRUE(budget_.try_charge(10_B));
      EXPECT_FALSE(budget_.try_charge(1_B));
      const bytes given = std::min(wanted, left_);
      left_ -= given;
      budget_.release(10_B + given);
      return given;
    }

   private:
    memory_budget& budget_;
    bytes left_ = 40_B;
  } source(budget);
  budget.add_reclaimer(source, reclaim_stage::user);
  // By us, or by the page daemon if it comes first.
  budget.reclaim(40_B);
  EXPECT_TRUE(eventually([&] { return budget.limit() == 50_B; }));
  budget.remove_reclaimer(source);
  budget.release(40_B);
}

TEST(LimitTest, OneThatRisesAgainGivesBackWhatItTook) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(60_B));
  ASSERT_TRUE(budget.set_limit(20_B));
  ASSERT_TRUE(budget.set_limit(70_B));
  EXPECT_EQ(budget.limit(), 70_B);
  EXPECT_FALSE(budget.has_waiters());
  EXPECT_TRUE(budget.try_charge(10_B));
  EXPECT_FALSE(budget.try_charge(1_B));
  ASSERT_TRUE(budget.set_limit(unlimited));
  EXPECT_TRUE(budget.try_charge(1_GiB));
  ASSERT_TRUE(budget.set_limit(1_MiB));
  budget.release(1_GiB + 70_B);
  EXPECT_EQ(budget.limit(), 1_MiB);
  EXPECT_EQ(budget.used(), 0_B);
  budget.audit();
}

TEST(LimitTest, WaitersThatCanNeverFitFailAtOnceAndOthersGoOnWaiting) {
  memory_budget root("root", {.limit = 1'000_B});
  memory_budget leaf("leaf", {}, &root);
  ASSERT_TRUE(root.try_charge(1'000_B));
  std::atomic<bool> small_served{false};
  std::thread large([&] { EXPECT_EQ(leaf.charge(600_B).error(), error_from(ENOMEM)); });
  ASSERT_TRUE(eventually([&] { return leaf.waits() == 1; }));
  std::thread small([&] {
    EXPECT_TRUE(leaf.charge(100_B));
    small_served = true;
  });
  ASSERT_TRUE(eventually([&] { return leaf.waits() == 2; }));
  ASSERT_TRUE(root.set_limit(500_B));
  large.join();
  EXPECT_EQ(leaf.charge(600_B).error(), error_from(ENOMEM)) << "who comes later as well";
  root.release(550_B);
  EXPECT_FALSE(small_served) << "450 are used under a limit of 500";
  root.release(100_B);
  small.join();
  EXPECT_EQ(root.used(), 450_B);
  root.release(350_B);
  leaf.release(100_B);
}

TEST(LimitTest, LessThanTheReserveIsRefused) {
  memory_budget budget("budget", {.limit = 100_B, .reserve = 10_B});
  EXPECT_EQ(budget.set_limit(9_B).error(), error_from(EINVAL));
  EXPECT_EQ(budget.limit(), 100_B);
  EXPECT_TRUE(budget.set_limit(10_B));
  EXPECT_EQ(budget.limit(), 10_B);
}

// Charges, releases and changes of the limit at once: no charge passes the limit that holds.
TEST(LimitTest, NobodyPassesALimitThatChanges) {
  memory_budget budget("budget", {.limit = 1'000_B});
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      const bytes amount{static_cast<std::uint64_t>(100 + 50 * i)};
      while (!stop) {
        if (budget.charge(amount, os::now() + 1ms)) budget.release(amount);
      }
    });
  }
  for (int round = 0; round < 5'000; ++round) {
    ASSERT_TRUE(budget.set_limit(bytes{static_cast<std::uint64_t>(round % 2 == 0 ? 120 : 400)}));
    // Until the next change the limit only falls or stays, so a look at it before is none too low.
    const bytes limit = budget.limit();
    ASSERT_LE(budget.used(), limit);
  }
  stop = true;
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(budget.used(), 0_B);
  EXPECT_EQ(budget.limit(), 400_B);
  budget.audit();
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include "budget/even_out.h"

#include <algorithm>
#include <functional>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/eventually.h"

namespace larder {
namespace {

// Holds a charge, and gives of it for others.
class holder final : public reclaimer {
 public:
  holder(memory_budget& budget, bytes amount, std::uint32_t weight = 1)
      : held(amount), budget_(budget), weight_(weight) {
    EXPECT_TRUE(budget_.try_charge(held));
    budget::add_shareholder(budget_, *this);
  }
  ~holder() {
    budget::remove_shareholder(budget_, *this);
    budget_.release(held);
  }
  bytes reclaim(bytes wanted) override {
    ++asked;
    if (when_asked) when_asked();
    const bytes given = std::min(held - keeps, wanted);
    held -= given;
    budget_.release(given);
    return given;
  }
  share share_held() const override { return {.surplus = held, .weight = weight_}; }

  // What others give for it is its own at once.
  bytes grow(bytes least = 4_KiB) {
    const bytes given = budget::even_out(budget_, *this, {.least = least, .grain = least, .wanted = most_});
    EXPECT_LE(given, most_);
    EXPECT_TRUE(given == bytes{} || budget_.try_charge(given));
    held += given;
    return given;
  }

  bytes held;
  bytes keeps;  // of what it says it holds
  unsigned asked = 0;
  std::function<void()> when_asked;

 private:
  static constexpr bytes most_ = 64_KiB;
  memory_budget& budget_;
  const std::uint32_t weight_;
};

TEST(EvenOutTest, RichestGivesUntilSharesAreEvenAndNoFurther) {
  for (const std::uint32_t weight : {1U, 3U}) {
    memory_budget budget("budget", {.limit = 4_MiB});
    holder rich(budget, 3_MiB);
    holder other(budget, 512_KiB);
    holder grows(budget, 512_KiB, weight);
    for (int times = 0; times < 100; ++times) grows.grow();
    EXPECT_EQ(other.asked, 0U);
    const double even = 3.5 * 1024 * 1024 * weight / (1 + weight);
    EXPECT_NEAR(static_cast<double>(grows.held.count), even, 16 * 1024);
    EXPECT_LE(grows.held.count, rich.held.count * weight) << "the order of the two is not turned round";
    EXPECT_EQ(rich.grow(), 0_KiB);
    EXPECT_EQ(budget.used(), 4_MiB);
  }
}

TEST(EvenOutTest, NobodyGivesWhereThereIsRoom) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder rich(budget, 3_MiB);
  holder grows(budget, 1_MiB - 4_KiB);
  EXPECT_EQ(grows.grow(4_KiB), 0_KiB);
  EXPECT_EQ(rich.asked, 0U);
  EXPECT_EQ(grows.grow(8_KiB), 64_KiB) << "there is not so much";
}

// Up to the high mark only: what is above it is for those who need it.
TEST(EvenOutTest, RoomEndsAtTheHighMark) {
  memory_budget budget("budget", {.limit = 4_MiB, .high_mark_percent = 75, .low_mark_percent = 70});
  holder rich(budget, 2_MiB);
  holder grows(budget, 1_MiB - 4_KiB);
  EXPECT_EQ(grows.grow(4_KiB), 0_KiB);
  EXPECT_EQ(grows.grow(8_KiB), 64_KiB);
}

// What would be given only brings the use back to the mark.
TEST(EvenOutTest, NobodyGivesInVain) {
  memory_budget budget("budget", {.limit = 4_MiB, .high_mark_percent = 75, .low_mark_percent = 75});
  holder rich(budget, 2_MiB);
  holder grows(budget, 512_KiB);
  const budget_charge others(budget, 512_KiB + 64_KiB);
  ASSERT_TRUE(budget.try_charge(others.amount()));
  EXPECT_EQ(budget::even_out(budget, grows, {.least = 4_KiB, .grain = 4_KiB, .wanted = 64_KiB}), 0_KiB);
  EXPECT_EQ(rich.asked, 0U);
  EXPECT_EQ(budget::even_out(budget, grows, {.least = 4_KiB, .grain = 4_KiB, .wanted = 128_KiB}), 128_KiB);
}

TEST(EvenOutTest, NobodyGivesToOneThatHasMore) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder poor(budget, 1_MiB);
  holder grows(budget, 3_MiB, 2);
  EXPECT_EQ(grows.grow(), 0_KiB);
  EXPECT_EQ(poor.asked, 0U);
}

// Less than one page of the taker's is of no use to it.
TEST(EvenOutTest, WholePagesAreGivenOrNothing) {
  memory_budget budget("budget", {.limit = 1_MiB});
  holder rich(budget, 560_KiB);
  holder grows(budget, 464_KiB);
  EXPECT_EQ(grows.grow(64_KiB), 0_KiB) << "48 KiB would make them even";
  EXPECT_EQ(rich.asked, 0U);
  EXPECT_EQ(grows.grow(32_KiB), 32_KiB);
}

// One that has much elsewhere cannot help where it is full, and one that is beside cannot where the room is shared.
TEST(EvenOutTest, ThoseGiveWhoseMemoryIsWhatIsLacking) {
  memory_budget root("root", {.limit = 8_MiB});
  memory_budget leaf("leaf", {.limit = 2_MiB}, &root);
  holder elsewhere(root, 5_MiB);
  holder beside(leaf, 1_MiB + 512_KiB);
  holder grows(leaf, 512_KiB);
  EXPECT_EQ(grows.grow(), 64_KiB);
  EXPECT_EQ(elsewhere.asked, 0U);
  EXPECT_EQ(beside.asked, 1U);
  // The leaf has room for two pages more, and the root for none.
  beside.held -= 8_KiB;
  leaf.release(8_KiB);
  holder rest(root, 1_MiB + 8_KiB);
  EXPECT_EQ(grows.grow(), 8_KiB) << "what it can use";
  EXPECT_EQ(elsewhere.asked, 1U);
  EXPECT_EQ(beside.asked, 1U);
}

TEST(EvenOutTest, OneThatHasNothingToGiveIsPassedOver) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder rich(budget, 2_MiB);
  rich.keeps = 2_MiB - 20_KiB;
  holder next(budget, 1_MiB + 512_KiB);
  holder grows(budget, 512_KiB);
  EXPECT_EQ(grows.grow(), 64_KiB);
  EXPECT_EQ(rich.held, rich.keeps);
  EXPECT_EQ(next.asked, 1U);
  EXPECT_EQ(next.held, 1_MiB + 512_KiB - 44_KiB);
}

// Where somebody takes from the richest, the next richest is not made poorer for it.
TEST(EvenOutTest, NobodyGivesWhileTheRichestIsAsked) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder rich(budget, 3_MiB);
  holder next(budget, 512_KiB);
  holder grows(budget, 256_KiB);
  holder grows_too(budget, 256_KiB);
  rich.when_asked = [&] { std::thread([&] { EXPECT_EQ(grows_too.grow(), 0_KiB); }).join(); };
  EXPECT_EQ(grows.grow(), 64_KiB);
  EXPECT_EQ(next.asked, 0U);
}

// What comes free is theirs who wait.
TEST(EvenOutTest, NobodyGivesWhileSomebodyWaits) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder rich(budget, 3_MiB);
  holder grows(budget, 1_MiB);
  std::thread waiter([&] {
    ASSERT_TRUE(budget.charge(512_KiB));
    budget.release(512_KiB);
  });
  EXPECT_TRUE(tests::eventually([&] { return budget.has_waiters(); }));
  EXPECT_EQ(grows.grow(), 0_KiB);
  EXPECT_EQ(rich.asked, 0U);
  rich.held -= 512_KiB;
  budget.release(512_KiB);
  waiter.join();
}

TEST(EvenOutTest, NobodyGivesToOneThatIsAskedItself) {
  memory_budget budget("budget", {.limit = 4_MiB});
  holder rich(budget, 3_MiB);
  holder grows(budget, 1_MiB);
  rich.when_asked = [&] { EXPECT_EQ(grows.grow(), 0_KiB); };
  EXPECT_EQ(budget::even_out(budget, grows, {.least = 4_KiB, .grain = 4_KiB, .wanted = 64_KiB}), 64_KiB);
  EXPECT_EQ(rich.asked, 1U);
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

namespace larder {
namespace {

// Holds a charge, says how much of it is surplus, and gives of it.
class shareholder final : public reclaimer {
 public:
  shareholder(memory_budget& budget, bytes amount, std::uint32_t weight, std::string* order = nullptr, char name = '?')
      : held(amount), budget_(budget), weight_(weight), order_(order), name_(name) {
    EXPECT_TRUE(budget_.try_charge(held));
    budget_.add_reclaimer(*this, reclaim_stage::clean_pages);
  }
  ~shareholder() {
    budget_.remove_reclaimer(*this);
    budget_.release(held);
  }
  bytes reclaim(bytes wanted) override {
    if (order_ != nullptr) order_->push_back(name_);
    if (when_asked) when_asked();
    largest_step = std::max(largest_step, wanted);
    const bytes given = std::min({held - keeps, wanted});
    held -= given;
    budget_.release(given);
    return given;
  }
  share share_held() const override { return {.surplus = held, .weight = weight_}; }

  bytes held;
  bytes keeps;  // of what it says it could give
  bytes largest_step;
  std::function<void()> when_asked;

 private:
  memory_budget& budget_;
  const std::uint32_t weight_;
  std::string* const order_;
  const char name_;
};

constexpr std::uint64_t step = (16_KiB).count;

TEST(FairShareTest, ThoseWithMostGiveDownToTheOthersLevel) {
  memory_budget budget("budget", {.limit = 8_MiB});
  const shareholder small(budget, 100_KiB, 1);
  const shareholder middle(budget, 1_MiB, 1);
  const shareholder large(budget, 3_MiB, 1);
  EXPECT_EQ(budget.reclaim(1_MiB), 1_MiB);
  EXPECT_EQ(large.held, 2_MiB);
  EXPECT_LE(large.largest_step, reclaim_chunk);
  EXPECT_EQ(budget.reclaim(2_MiB), 2_MiB);
  EXPECT_NEAR(static_cast<double>(large.held.count), 512.0 * 1024, step);
  EXPECT_NEAR(static_cast<double>(middle.held.count), 512.0 * 1024, step);
  EXPECT_EQ(small.held, 100_KiB) << "it has less than its share";
  EXPECT_EQ(budget.reclaim(1_MiB), 1_MiB);
  for (const shareholder* each : {&small, &middle, &large}) {
    EXPECT_NEAR(static_cast<double>(each->held.count), 100.0 * 1024 / 3, step);
  }
}

TEST(FairShareTest, SharesAreInTheProportionOfTheWeights) {
  memory_budget budget("budget", {.limit = 16_MiB});
  memory_budget below("below", {}, &budget);
  const shareholder one(budget, 4_MiB, 1);
  const shareholder two(below, 2_MiB, 2);
  const shareholder five(budget, 5_MiB, 5);
  ASSERT_EQ(budget.reclaim(7_MiB), 7_MiB);
  EXPECT_NEAR(static_cast<double>(one.held.count), 512.0 * 1024, step);
  EXPECT_NEAR(static_cast<double>(two.held.count), 1024.0 * 1024, step);
  EXPECT_NEAR(static_cast<double>(five.held.count), 2560.0 * 1024, step);
}

// Its surplus says otherwise, but what it was asked for it did not give: the others are asked.
TEST(FairShareTest, WhoRunsDryIsNotAskedAgainInThatRound) {
  memory_budget budget("budget", {.limit = 8_MiB});
  std::string order;
  const shareholder giving(budget, 1_MiB, 1, &order, 'g');
  shareholder dry(budget, 4_MiB, 1, &order, 'd');
  dry.keeps = dry.held;
  EXPECT_EQ(budget.reclaim(512_KiB), 512_KiB);
  EXPECT_EQ(order, "dgg");
  EXPECT_EQ(budget.reclaim(1_MiB), 512_KiB);
  EXPECT_EQ(order,
            "dggdgg"
            "g");
  EXPECT_EQ(budget.reclaim(1_KiB), 0_KiB) << "and in the next it is asked again";
  EXPECT_EQ(order,
            "dggdggg"
            "dg");
}

// Of two who reclaim at once neither asks again who the other found dry, or they would do so for ever.
TEST(FairShareTest, WhatANewerRoundFoundDryIsDryForTheOlder) {
  memory_budget budget("budget", {.limit = 8_MiB});
  std::string order;
  shareholder dry(budget, 4_MiB, 1, &order, 'd');
  shareholder drier(budget, 2_MiB, 1, &order, 'e');
  dry.keeps = dry.held;
  drier.keeps = drier.held;
  dry.when_asked = [&] { std::thread([&] { EXPECT_EQ(budget.reclaim(1_KiB), 0_KiB); }).join(); };
  EXPECT_EQ(budget.reclaim(1_KiB), 0_KiB);
  EXPECT_EQ(order, "de");
}

TEST(FairShareTest, StagesComeBeforeShares) {
  memory_budget budget("budget", {.limit = 8_MiB});
  std::string order;
  struct last final : reclaimer {
    explicit last(std::string& into) : order(into) {}
    bytes reclaim(bytes) override {
      order.push_back('l');
      return {};
    }
    std::string& order;
  } unequal(order);
  budget.add_reclaimer(unequal, reclaim_stage::user);  // says nothing of its share: as much as there can be
  {
    const shareholder pages(budget, 32_KiB, 1, &order, 'p');
    EXPECT_EQ(budget.reclaim(1_MiB), 32_KiB);
  }
  EXPECT_EQ(order.find('l'), order.size() - 1) << order;
  budget.remove_reclaimer(unequal);
}

}  // namespace
}  // namespace larder

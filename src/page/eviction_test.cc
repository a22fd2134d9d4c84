// SPDX-License-Identifier: Apache-2.0
#include "page/eviction.h"

#include <array>

#include <gtest/gtest.h>

namespace larder::page {
namespace {

class EvictionTest : public ::testing::Test {
 protected:
  EvictionTest() {
    EXPECT_TRUE(arena_.reserve(8));
    for (frame*& each : pages_) queue_.insert(*(each = &arena_.take()));
  }
  // Which page the hand gives first, by number, and takes out.
  int evict() {
    frame* victim = nullptr;
    for (std::uint32_t step = 0; victim == nullptr && step < 2 * queue_.size(); ++step) victim = queue_.advance();
    if (victim == nullptr) return -1;
    queue_.remove(*victim);
    for (std::size_t i = 0; i < pages_.size(); ++i) {
      if (pages_[i] == victim) return static_cast<int>(i);
    }
    return -1;
  }
  void visit(std::size_t number) { pages_[number]->state.fetch_or(visited); }

  frame_arena arena_;
  eviction_queue queue_{arena_};
  std::array<frame*, 4> pages_{};
};

TEST_F(EvictionTest, OldestLeavesFirst) {
  EXPECT_EQ(evict(), 0);
  EXPECT_EQ(evict(), 1);
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 3);
  EXPECT_EQ(evict(), -1);
}

TEST_F(EvictionTest, VisitedPageStaysOnceAndKeepsItsPlace) {
  visit(0);
  visit(1);
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 3) << "the hand goes on towards the newest";
  EXPECT_EQ(evict(), 0) << "and round to the oldest, whose mark it took";
  EXPECT_EQ(evict(), 1);
}

// KF-45
TEST_F(EvictionTest, LookingIsNotVisiting) {
  for (std::uint32_t round = 0; round < 3 * queue_.size(); ++round) EXPECT_NE(queue_.advance(), nullptr);
  for (const frame* each : pages_) EXPECT_EQ(each->state & visited, 0U);
}

TEST_F(EvictionTest, NewPageIsPassedAfterTheHand) {
  visit(0);
  EXPECT_EQ(evict(), 1);
  queue_.insert(*pages_[1]);
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 3);
  EXPECT_EQ(evict(), 1) << "seen once, it leaves before the old page that was visited";
  EXPECT_EQ(evict(), 0);
}

TEST_F(EvictionTest, PageUnderTheHandMayBeRemoved) {
  visit(0);
  EXPECT_EQ(queue_.advance(), nullptr);
  queue_.remove(*pages_[1]);
  EXPECT_EQ(evict(), 2);
  queue_.remove(*pages_[3]);
  EXPECT_EQ(evict(), 0);
  EXPECT_EQ(queue_.size(), 0U);
}

TEST_F(EvictionTest, AllVisitedTheOldestLeaves) {
  for (std::size_t i = 0; i < pages_.size(); ++i) visit(i);
  EXPECT_EQ(evict(), 0);
}

}  // namespace
}  // namespace larder::page

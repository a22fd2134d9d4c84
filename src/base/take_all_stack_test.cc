// SPDX-License-Identifier: Apache-2.0
#include "base/take_all_stack.h"

#include <array>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace larder::base {
namespace {

struct element : stack_link {
  unsigned producer = 0;
  unsigned number = 0;            // plain: the stack must publish it
  std::atomic<bool> held{false};  // by a thread of the test
};

element* as_element(stack_link* link) { return static_cast<element*>(link); }

TEST(TakeAllStackTest, TakesTheLastPushedFirst) {
  take_all_stack stack;
  std::array<element, 3> elements;
  EXPECT_EQ(stack.take_all(), nullptr);
  for (element& each : elements) stack.push(each);
  stack_link* taken = stack.take_all();
  EXPECT_EQ(taken, &elements[2]);
  EXPECT_EQ(taken->next, &elements[1]);
  EXPECT_EQ(taken->next->next, &elements[0]);
  EXPECT_EQ(taken->next->next->next, nullptr);
  EXPECT_TRUE(stack.empty());
}

TEST(TakeAllStackTest, TakesInTheOrderOfPushing) {
  take_all_stack stack;
  std::array<element, 3> elements;
  EXPECT_EQ(stack.take_all_in_order(), nullptr);
  for (element& each : elements) stack.push(each);
  stack_link* taken = stack.take_all_in_order();
  EXPECT_EQ(taken, &elements[0]);
  EXPECT_EQ(taken->next, &elements[1]);
  EXPECT_EQ(taken->next->next, &elements[2]);
  EXPECT_EQ(taken->next->next->next, nullptr);
}

TEST(TakeAllStackTest, PushTellsWhetherTheStackWasEmpty) {
  take_all_stack stack;
  element first;
  element second;
  EXPECT_TRUE(stack.push(first));
  EXPECT_FALSE(stack.push(second));
  stack.take_all();
  EXPECT_TRUE(stack.push(second));
}

TEST(TakeAllStackTest, ManyProducersLoseAndDoubleNothingAndKeepTheirOrder) {
  constexpr unsigned producers = 3;
  constexpr unsigned each = 20'000;
  take_all_stack stack;
  std::vector<std::unique_ptr<element[]>> elements;
  for (unsigned i = 0; i < producers; ++i) elements.push_back(std::make_unique<element[]>(each));
  std::atomic<unsigned> found_empty{0};
  std::vector<std::thread> threads;
  for (unsigned producer = 0; producer < producers; ++producer) {
    threads.emplace_back([&, producer] {
      for (unsigned number = 0; number < each; ++number) {
        element& mine = elements[producer][number];
        mine.producer = producer;
        mine.number = number;
        if (stack.push(mine)) ++found_empty;
      }
    });
  }
  std::array<unsigned, producers> expected{};
  unsigned batches = 0;
  for (unsigned taken = 0; taken < producers * each;) {
    stack_link* link = stack.take_all_in_order();
    if (link != nullptr) ++batches;
    for (; link != nullptr; link = link->next, ++taken) {
      const element& got = *as_element(link);
      ASSERT_EQ(got.number, expected[got.producer]++) << "of producer " << got.producer;
    }
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(stack.empty());
  EXPECT_EQ(found_empty, batches) << "each push that found it empty began one batch";
}

// The schedule that breaks a stack from which single elements are popped: elements come back while others look.
TEST(TakeAllStackTest, ElementsThatGoRoundAreNeverHeldTwice) {
  constexpr unsigned workers = 4;
  std::array<element, 6> elements;
  take_all_stack stack;
  std::atomic<unsigned> found_empty{0};
  std::atomic<unsigned> batches{0};
  std::atomic<bool> doubled{false};
  for (element& each : elements) {
    if (stack.push(each)) ++found_empty;
  }
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < workers; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20'000; ++round) {
        stack_link* link = stack.take_all();
        if (link != nullptr) ++batches;
        while (link != nullptr) {
          stack_link* next = link->next;
          element& mine = *as_element(link);
          if (mine.held.exchange(true, std::memory_order_relaxed)) doubled = true;
          ++mine.number;
          mine.held.store(false, std::memory_order_relaxed);
          if (stack.push(mine)) ++found_empty;
          link = next;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(doubled);
  std::size_t left = 0;
  for (stack_link* link = stack.take_all(); link != nullptr; link = link->next) ++left;
  ++batches;
  EXPECT_EQ(left, elements.size());
  EXPECT_EQ(found_empty, batches);
}

}  // namespace
}  // namespace larder::base

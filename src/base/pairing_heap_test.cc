// SPDX-License-Identifier: Apache-2.0
#include "base/pairing_heap.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/model_random.h"

namespace larder::base {
namespace {

struct timer : heap_link {
  int due = 0;
  bool queued = false;
};

struct due_before {
  bool operator()(const timer& a, const timer& b) const { return a.due < b.due; }
};

using timer_heap = pairing_heap<timer, due_before>;

TEST(PairingHeapTest, EmptyHeapHasNoTop) {
  timer_heap heap;
  EXPECT_TRUE(heap.empty());
  EXPECT_EQ(heap.top(), nullptr);
  EXPECT_EQ(heap.pop(), nullptr);
}

TEST(PairingHeapTest, PopsInOrderWhateverTheOrderOfPushes) {
  std::array<int, 7> order{0, 1, 2, 3, 4, 5, 6};
  do {
    std::array<timer, order.size()> timers;
    timer_heap heap;
    for (const int due : order) {
      timers[static_cast<std::size_t>(due)].due = due;
      heap.push(timers[static_cast<std::size_t>(due)]);
    }
    for (int due = 0; due < static_cast<int>(order.size()); ++due) ASSERT_EQ(heap.pop()->due, due);
    ASSERT_TRUE(heap.empty());
  } while (std::next_permutation(order.begin(), order.end()));
}

// Against a multiset: pushes, pops, and removals of any element, then of the rest in the order of their due times.
TEST(PairingHeapTest, MatchesAMultisetOverRandomOperations) {
  tests::model_random random;
  std::vector<timer> timers(200);
  timer_heap heap;
  std::multiset<int> model;
  for (int step = 0; step < 100'000; ++step) {
    // Phases of growth and of shrinking, so that the heap is large and empty in turn.
    const bool growing = step / 400 % 2 == 0;
    timer& chosen = timers[random.below(timers.size())];
    if (!chosen.queued && (growing || random.one_in(4))) {
      chosen.due = static_cast<int>(random.below(100));  // many are equal
      chosen.queued = true;
      heap.push(chosen);
      model.insert(chosen.due);
    } else if (chosen.queued && (!growing || random.one_in(4))) {
      heap.remove(chosen);
      chosen.queued = false;
      model.erase(model.find(chosen.due));
    } else if (random.one_in(4) && !model.empty()) {
      timer* least = heap.pop();
      ASSERT_NE(least, nullptr);
      ASSERT_TRUE(least->queued);
      least->queued = false;
      ASSERT_EQ(least->due, *model.begin());
      model.erase(model.begin());
    }
    ASSERT_EQ(heap.empty(), model.empty());
    if (!model.empty()) {
      ASSERT_EQ(heap.top()->due, *model.begin());
    }
  }
  for (const int due : model) ASSERT_EQ(heap.pop()->due, due);
  EXPECT_TRUE(heap.empty());
}

TEST(PairingHeapTest, HundredThousandElementsInOneRowNeedNoDeepStack) {
  std::vector<timer> timers(100'000);
  timer_heap heap;
  for (std::size_t i = 0; i < timers.size(); ++i) {
    timers[i].due = static_cast<int>(timers.size() - i);  // each becomes the root over all before
    heap.push(timers[i]);
  }
  for (int due = 1; due <= static_cast<int>(timers.size()); ++due) ASSERT_EQ(heap.pop()->due, due);
}

}  // namespace
}  // namespace larder::base

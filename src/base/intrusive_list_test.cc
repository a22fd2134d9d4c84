// SPDX-License-Identifier: Apache-2.0
#include "base/intrusive_list.h"

#include <algorithm>
#include <array>
#include <deque>

#include <gtest/gtest.h>

#include "tests/support/model_random.h"

namespace larder::base {
namespace {

struct by_age {};
struct by_name {};
struct item : list_link<by_age>, list_link<by_name> {};

using age_list = intrusive_list<item, by_age>;
using name_list = intrusive_list<item, by_name>;

TEST(IntrusiveListTest, EmptyListHasNoEnds) {
  age_list list;
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.size(), 0U);
  EXPECT_EQ(list.front(), nullptr);
  EXPECT_EQ(list.back(), nullptr);
  EXPECT_EQ(list.pop_front(), nullptr);
}

TEST(IntrusiveListTest, AnObjectIsOnTwoListsByTwoTags) {
  item first;
  item second;
  age_list ages;
  name_list names;
  ages.push_back(first);
  ages.push_back(second);
  names.push_front(first);
  names.push_front(second);
  age_list::remove(first);
  EXPECT_FALSE(static_cast<list_link<by_age>&>(first).linked());
  EXPECT_TRUE(static_cast<list_link<by_name>&>(first).linked());
  EXPECT_EQ(ages.front(), &second);
  EXPECT_EQ(names.front(), &second);
  EXPECT_EQ(names.back(), &first);
  EXPECT_EQ(names.size(), 2U);
}

TEST(IntrusiveListTest, MatchesADequeOverRandomOperations) {
  tests::model_random random;
  std::array<item, 12> items;
  age_list list;
  std::deque<item*> model;
  for (int step = 0; step < 20'000; ++step) {
    item& chosen = items[random.below(items.size())];
    const auto place = std::find(model.begin(), model.end(), &chosen);
    if (random.one_in(5)) {
      item* expected = model.empty() ? nullptr : model.front();
      ASSERT_EQ(list.pop_front(), expected);
      if (expected != nullptr) model.pop_front();
    } else if (place != model.end()) {
      age_list::remove(chosen);
      model.erase(place);
      ASSERT_FALSE(static_cast<list_link<by_age>&>(chosen).linked());
    } else if (random.one_in(2)) {
      list.push_front(chosen);
      model.push_front(&chosen);
    } else {
      list.push_back(chosen);
      model.push_back(&chosen);
    }
    ASSERT_EQ(list.size(), model.size());
    ASSERT_EQ(list.empty(), model.empty());
    item* forward = list.front();
    for (item* expected : model) {
      ASSERT_EQ(forward, expected);
      forward = list.after(*forward);
    }
    ASSERT_EQ(forward, nullptr);
    item* backward = list.back();
    for (auto expected = model.rbegin(); expected != model.rend(); ++expected) {
      ASSERT_EQ(backward, *expected);
      backward = list.before(*backward);
    }
    ASSERT_EQ(backward, nullptr);
  }
}

TEST(IntrusiveListDeathTest, DebugBuildsCatchDoubleInsertAndDoubleRemove) {
#ifdef LARDER_DEBUG_CHECKS
  item once;
  age_list list;
  list.push_back(once);
  EXPECT_DEATH(list.push_back(once), "on a list already");
  age_list::remove(once);
  EXPECT_DEATH(age_list::remove(once), "on no list");
#else
  GTEST_SKIP() << "checked in builds with LARDER_DEBUG_CHECKS";
#endif
}

}  // namespace
}  // namespace larder::base

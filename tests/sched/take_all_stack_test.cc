// SPDX-License-Identifier: Apache-2.0
#include "base/take_all_stack.h"

#include <array>

#include <gtest/gtest.h>

#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

struct element : base::stack_link {
  unsigned taken = 0;
  bool held = false;  // by a taker
};

// Two pushers, two takers, of which one puts an element back.
class pushers_and_takers : public scenario {
 public:
  pushers_and_takers() {
    name(stack_, "head");
    for (std::size_t i = 0; i < 2; ++i) stack_.push(elements_[i]);
    thread("pusher", [this] { stack_.push(elements_[2]); });
    thread("other pusher", [this] { stack_.push(elements_[3]); });
    thread("taker", [this] { hold(stack_.take_all()); });
    thread("returner", [this] {
      base::stack_link* first = stack_.take_all();
      if (first == nullptr) return;
      base::stack_link* rest = first->next != nullptr ? first->next : stack_.take_all();
      hold(rest);
      stack_.push(*first);
    });
  }

  // Every element is held by one taker, or still on the stack, once.
  void audit() override {
    while (!stack_.empty()) hold(stack_.take_all_in_order());
    for (const element& each : elements_) require(each.held, "an element was lost");
  }

 private:
  static void hold(base::stack_link* link) {
    for (unsigned seen = 0; link != nullptr; link = link->next) {
      require(++seen <= 4, "the chain that was taken is a ring");
      auto& each = static_cast<element&>(*link);
      require(!each.held, "an element was taken twice");
      each.held = true;
    }
  }

  std::array<element, 4> elements_;
  base::take_all_stack stack_;
};

TEST(TakeAllStackSchedTest, NoElementIsTakenTwiceOrLost) {
  const search_report report = explore<pushers_and_takers>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// KF-21: an element that was popped alone and came back makes the compare-and-swap of a second popper succeed in error.
TEST(TakeAllStackSchedTest, TakingOneElementAtATimeIsCaught) {
  EXPECT_TRUE(mutant_is_killed<pushers_and_takers>(base::mutant::pop_one));
}

TEST(TakeAllStackSchedTest, TakingInTwoStepsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<pushers_and_takers>(base::mutant::take_without_exchange));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
#include "os/parker.h"

#include <chrono>

#include <gtest/gtest.h>

#include "os/clock.h"
#include "os/thread_parker.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// The owner waits until both flags are set, as every caller of a parker does: in a loop.
class two_unparkers : public scenario {
 public:
  two_unparkers() {
    name(parker_, "parker");
    thread("owner", [this] {
      while (!first_ || !second_) parker_.park();
    });
    thread("unparker", [this] {
      first_ = true;
      parker_.unpark();
    });
    thread("other", [this] {
      second_ = true;
      parker_.unpark();
    });
  }

 private:
  os::thread_parker parker_;
  base::atomic<bool> first_{false};
  base::atomic<bool> second_{false};
};

TEST(ParkerSchedTest, NoUnparkIsLost) {
  const search_report report = explore<two_unparkers>({.preemptions = unbounded, .system = {.spurious_wakes = 1}});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(ParkerSchedTest, UnparkThatDoesNotLookForASleeperIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_unparkers>(mutant::token_without_look));
}

TEST(ParkerSchedTest, SleeperThatDoesNotLookForATokenIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_unparkers>(mutant::sleep_without_look));
}

// One token, and an owner that parks twice with deadlines: exactly one park may find it.
class one_token : public scenario {
 public:
  one_token() {
    name(parker_, "parker");
    thread("owner", [this] {
      for (int park = 0; park < 2; ++park) {
        const time_point deadline = os::now() + 1h;
        if (parker_.park_until(deadline)) {
          ++found_;
        } else {
          require(os::now() >= deadline, "a park ended without a token before its deadline");
        }
      }
    });
    thread("unparker", [this] { parker_.unpark(); });
  }
  // A token that came too late for both is still there.
  void audit() override {
    if (found_ == 0 && parker_.park_until(os::now())) ++found_;
    require(found_ == 1, "one token was found %u times", found_);
  }

 private:
  os::thread_parker parker_;
  unsigned found_ = 0;
};

TEST(ParkerSchedTest, TokenIsFoundExactlyOnceWhateverDeadlinesPass) {
  const search_report report = explore<one_token>({.preemptions = unbounded, .system = {.spurious_wakes = 2}});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(ParkerSchedTest, DeadlineThatLeavesTheWordAsleepIsCaught) {
  EXPECT_TRUE(mutant_is_killed<one_token>(mutant::asleep_left_behind));
}

}  // namespace
}  // namespace larder::sched

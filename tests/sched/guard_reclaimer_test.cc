// SPDX-License-Identifier: Apache-2.0
//
// Who lacks a guard visits the caches of stacks while others of these are made and destroyed.
#include "coro/guard_reclaimer.h"

#include <gtest/gtest.h>

#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using base::mutant;

// As many idle stacks as it is made with. What it holds is atomic only to be a scheduling point.
class holder final : public coro::guard_reclaimer {
 public:
  explicit holder(int idle) : idle_(idle) {}
  bool give_up_some() override {
    require(!removed_, "one is visited that was removed");
    int idle = idle_;
    while (idle != 0 && !idle_.compare_exchange_strong(idle, idle - 1)) continue;
    require(!removed_, "one is removed while it is visited");
    return idle != 0;
  }
  void note_removed() { removed_ = true; }
  int idle() const { return idle_; }

 private:
  base::atomic<int> idle_;
  base::atomic<bool> removed_{false};
};

class visits_beside_removal : public scenario {
 public:
  visits_beside_removal() {
    all_.add(first_);
    all_.add(second_);
    thread("lacks one", [this] { all_.ask([] { return true; }); });
    thread("lacks many", [this] { all_.ask([] { return false; }); });
    thread("removes", [this] {
      all_.remove(first_);
      first_.note_removed();
    });
  }
  void audit() override {
    require(second_.idle() == 0, "who lacks many leaves something");
    all_.remove(second_);
  }

 private:
  coro::guard_reclaimers all_;
  holder first_{1};
  holder second_{1};
};

TEST(GuardReclaimerSchedTest, NobodyIsInsideOneThatWasRemoved) {
  const search_report report = explore<visits_beside_removal>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(GuardReclaimerSchedTest, RemovalThatDoesNotWaitIsCaught) {
  EXPECT_TRUE(mutant_is_killed<visits_beside_removal>(mutant::visited_removed));
}

}  // namespace
}  // namespace larder::sched

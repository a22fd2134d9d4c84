// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <mutex>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "base/mutex.h"
#include "budget/even_out.h"
#include "budget/reclaim.h"
#include "budget/round.h"
#include "budget/tree.h"
#include "os/clock.h"
#include "tests/sched/explore.h"
#include "tests/sched/page_daemon.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// All of a budget of 100 bytes is charged at first. Everybody gives back what they get.
class full_budget : public scenario {
 protected:
  full_budget() { require(budget_.try_charge(100_B), "an empty budget had no room"); }

  void charge_and_release(bytes amount, time_point deadline = no_deadline) {
    if (const auto charged = budget_.charge(amount, deadline); !charged) {
      require(charged.error() == error_from(ETIMEDOUT) && deadline != no_deadline, "a charge failed");
      require(os::now() >= deadline, "a charge failed before its deadline");
      return;
    }
    require(budget_.used() <= budget_.limit(), "the limit was passed");
    budget_.release(amount);
  }
  void audit() override {
    budget_.audit();
    require(!budget_.has_waiters(), "somebody is left in the queue");
    require(budget_.used() == 0_B, "%llu bytes are charged to nobody",
            static_cast<unsigned long long>(budget_.used().count));
  }

  memory_budget budget_{"budget", {.limit = 100_B}};
};

class waiters_and_releaser : public full_budget {
 public:
  waiters_and_releaser() {
    thread("large", [this] { charge_and_release(80_B); });
    thread("small", [this] { charge_and_release(30_B); });
    thread("releaser", [this] {
      budget_.release(40_B);
      budget_.release(60_B);
    });
  }
};

TEST(BudgetTicketSchedTest, EveryWaiterIsServedByTheReleases) {
  const search_report report = explore<waiters_and_releaser>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, TicketThatLooksBeforeItEntersIsCaught) {
  EXPECT_TRUE(mutant_is_killed<waiters_and_releaser>(mutant::scan_before_enter));
}

TEST(BudgetTicketSchedTest, ReleaserThatLooksBeforeItGivesBackIsCaught) {
  EXPECT_TRUE(mutant_is_killed<waiters_and_releaser>(mutant::look_before_subtract));
}

// The deadline of the older ticket may pass at any moment: before, while and after it is served.
class impatient_waiter : public full_budget {
 public:
  impatient_waiter() {
    thread("impatient", [this] { charge_and_release(80_B, os::now() + 1h); });
    thread("patient", [this] { charge_and_release(30_B); });
    thread("releaser", [this] { budget_.release(100_B); });
  }
};

TEST(BudgetTicketSchedTest, DeadlineLosesNeitherMemoryNorTheTurnOfWhoIsBehind) {
  const search_report report = explore<impatient_waiter>({.preemptions = 2, .system = {.spurious_wakes = 1}});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, DeadlineThatForgetsWhatWasHandedOverIsCaught) {
  EXPECT_TRUE(mutant_is_killed<impatient_waiter>(mutant::timeout_drops_grant));
}

// What is charged at first belongs to a cache, which gives it back when it is asked.
class waiters_and_reclaimer : public full_budget, private reclaimer {
 public:
  waiters_and_reclaimer() {
    budget_.add_reclaimer(*this, reclaim_stage::user);
    thread("large", [this] { charge_and_release(80_B); });
    thread("impatient", [this] { charge_and_release(30_B, os::now() + 1h); });
    thread("user", [this] { pin_and_unpin(); });
  }
  void audit() override {
    budget_.remove_reclaimer(*this);
    budget_.release(cached_);
    full_budget::audit();
  }

 private:
  // Half of the cache can be given back only after this.
  void pin_and_unpin() {
    {
      const std::lock_guard locked(guard_);
      pinned_ = 0_B;
    }
    budget_.note_reclaimable();
  }
  bytes reclaim(bytes wanted) override {
    bytes given;
    {
      const std::lock_guard locked(guard_);
      given = std::min(wanted, cached_ - pinned_);
      cached_ -= given;
    }
    if (given.count > 0) budget_.release(given);
    return given;
  }

  base::system_mutex guard_;
  bytes cached_ = 100_B;  // guarded by `guard_`
  bytes pinned_ = 50_B;   // guarded by `guard_`
};

TEST(BudgetTicketSchedTest, ReclaimerServesEveryWaiterAndIsAskedAgainWhenThereIsHope) {
  const search_report report = explore<waiters_and_reclaimer>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, NotesThatNobodyHearsAreCaught) {
  EXPECT_TRUE(mutant_is_killed<waiters_and_reclaimer>(mutant::hope_forgotten));
}

// The limit comes down while others charge: what it takes is gone for all who have read the higher one.
class limit_cutter : public scenario {
 public:
  limit_cutter() {
    require(budget_.try_charge(50_B), "an empty budget had no room");
    thread("cutter", [this] {
      require(static_cast<bool>(budget_.set_limit(60_B)), "the limit was not taken");
      require(budget_.limit() <= 90_B, "the limit did not come down");
      look();
    });
    thread("charger", [this] {
      if (!budget_.try_charge(40_B)) return;
      look();
      budget_.release(40_B);
    });
    thread("releaser", [this] {
      look();
      budget_.release(50_B);
    });
  }
  void audit() override {
    budget_.audit();
    require(budget_.limit() == 60_B && budget_.used() == 0_B && !budget_.has_waiters(), "the limit is not down");
  }

 private:
  // The limit only falls, so one of before is none too low.
  void look() {
    const bytes before = budget_.limit();
    require(budget_.used() <= before, "the limit was passed");
  }

  memory_budget budget_{"budget", {.limit = 100_B}};
};

TEST(BudgetTicketSchedTest, LimitComesDownBesideChargesAndReleases) {
  const search_report report = explore<limit_cutter>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, LimitThatIsLoweredWithoutWithholdingIsCaught) {
  EXPECT_TRUE(mutant_is_killed<limit_cutter>(mutant::limit_without_withholding));
}

TEST(BudgetTicketSchedTest, LimitThatLooksForRoomBeforeItCountsAsWaitingIsCaught) {
  EXPECT_TRUE(mutant_is_killed<limit_cutter>(mutant::cut_before_enter));
}

// A ticket waits for what the lower limit has no room for, while its memory comes free.
class hopeless_waiter : public full_budget {
 public:
  hopeless_waiter() {
    thread("waiter", [this] {
      const auto charged = budget_.charge(80_B);
      if (charged) {
        budget_.release(80_B);
      } else {
        require(charged.error() == error_from(ENOMEM), "a charge failed for another reason");
      }
    });
    thread("cutter", [this] { require(static_cast<bool>(budget_.set_limit(60_B)), "the limit was not taken"); });
    thread("releaser", [this] { budget_.release(100_B); });
  }
};

TEST(BudgetTicketSchedTest, WaiterThatTheLimitLeavesNoRoomForIsToldSo) {
  const search_report report = explore<hopeless_waiter>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// A cache that was filled past the high mark, and the page daemon, which is to come down from it.
class mark_crosser_base : public scenario, private reclaimer {
 protected:
  mark_crosser_base() {
    set_page_daemon(true);
    budget_.add_reclaimer(*this, reclaim_stage::clean_pages);
    require(budget_.try_charge({cached_}), "there was no room");
  }
  void visit() {
    for (int most = 3; most > 0; --most) {
      due_ = std::min(due_, take_page_daemon_call());
      if (due_ <= os::now()) due_ = budget::reclaim_round(*budget::state_of(budget_).tree, os::now());
    }
  }
  void end(bytes charged) {
    visit();
    require(budget_.used() <= 100_B, "%llu bytes are used, and the page daemon rests",
            static_cast<unsigned long long>(budget_.used().count));
    budget_.remove_reclaimer(*this);
    budget_.release(bytes{cached_} + charged);
    budget_.audit();
    set_page_daemon(false);
  }
  bytes reclaim(bytes wanted) override {
    const bytes given = std::min(wanted, bytes{cached_});
    cached_ -= given.count;
    budget_.release(given);
    return given;
  }

  memory_budget budget_{"budget", {.limit = 200_B, .high_mark_percent = 50, .low_mark_percent = 25}};

 private:
  std::uint64_t cached_ = 110;
  time_point due_ = no_deadline;
};

// A charge passes the mark again while the daemon goes to rest. A visit follows that sees it.
class mark_crosser : public mark_crosser_base {
 public:
  mark_crosser() {
    thread("charger", [this] { require(budget_.try_charge(60_B), "there was no room"); });
    thread("daemon", [this] { visit(); });
  }
  void audit() override { end(60_B); }
};

TEST(BudgetTicketSchedTest, DaemonThatGoesToRestMissesNoCrossing) {
  const search_report report = explore<mark_crosser>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, DaemonThatLooksBeforeItClearsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<mark_crosser>(mutant::daemon_clears_late));
}

TEST(BudgetTicketSchedTest, DaemonThatIsBelievedToComeIsCaught) {
  EXPECT_TRUE(mutant_is_killed<mark_crosser>(mutant::daemon_kept_called));
}

// Who waits lacks more than the daemon reclaims, and may meet the only reclaimer while the daemon is inside it.
class daemon_before_waiter : public mark_crosser_base {
 public:
  daemon_before_waiter() {
    thread("waiter", [this] {
      require(static_cast<bool>(budget_.charge(160_B)), "a charge failed");
      budget_.release(160_B);
    });
    thread("daemon", [this] { visit(); });
  }
  void audit() override { end(0_B); }
};

TEST(BudgetTicketSchedTest, WhoMeetsTheDaemonInTheReclaimerIsServed) {
  const search_report report = explore<daemon_before_waiter>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, DaemonThatTellsNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<daemon_before_waiter>(mutant::daemon_brings_no_hope));
}

// A cache that holds everything is kept at rest for a while, and who waits for its memory may pass it over.
class pauser_before_waiter : public full_budget, private reclaimer {
 public:
  pauser_before_waiter() {
    budget_.add_reclaimer(*this, reclaim_stage::user);
    thread("waiter", [this] { charge_and_release(80_B); });
    thread("pauser", [this] {
      const budget::reclaimer_pause pause(budget_, *this);
      require(!inside_, "it is being asked, and at rest");
      at_rest_ = true;
      at_rest_ = false;
    });
  }
  void audit() override {
    budget_.remove_reclaimer(*this);
    budget_.release(cached_);
    full_budget::audit();
  }

 private:
  bytes reclaim(bytes wanted) override {
    inside_ = true;
    require(!at_rest_, "it is asked, and at rest");
    cached_ -= wanted;
    budget_.release(wanted);
    inside_ = false;
    return wanted;
  }

  bytes cached_ = 100_B;
  base::atomic<bool> inside_{false};
  base::atomic<bool> at_rest_{false};
};

TEST(BudgetTicketSchedTest, WhoMeetsAReclaimerAtRestIsServedAfterwards) {
  const search_report report = explore<pauser_before_waiter>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, PauseThatTellsNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<pauser_before_waiter>(mutant::rest_brings_no_hope));
}

// A cache goes while another takes of it what makes their shares even.
class leaver_beside_evener : public scenario {
 public:
  leaver_beside_evener() {
    require(budget_.try_charge(100_B), "an empty budget had no room");
    budget::add_shareholder(budget_, poor_);
    budget::add_shareholder(budget_, rich_);
    thread("evener", [this] { budget::even_out(budget_, poor_, {.least = 10_B, .grain = 10_B, .wanted = 20_B}); });
    thread("leaver", [this] {
      budget::remove_shareholder(budget_, rich_);
      rich_.gone = true;
    });
  }
  void audit() override {
    budget::remove_shareholder(budget_, poor_);
    budget_.release(bytes{rich_.held});
    budget_.audit();
  }

 private:
  // Says that it has a great deal more than it holds, so that the bytes of this budget are worth a step.
  struct cache final : reclaimer {
    cache(memory_budget& budget, std::uint64_t amount) : of(budget), held(amount) {}
    bytes reclaim(bytes wanted) override {
      require(!gone, "it is asked, and gone");
      held -= wanted.count;
      of.release(wanted);
      require(!gone, "it has gone while it was asked");
      return wanted;
    }
    share share_held() const override { return {.surplus = 1_MiB * held.load()}; }
    memory_budget& of;
    base::atomic<std::uint64_t> held;
    base::atomic<bool> gone{false};
  };
  memory_budget budget_{"budget", {.limit = 100_B}};
  cache rich_{budget_, 100};
  cache poor_{budget_, 0};
};

TEST(BudgetTicketSchedTest, CacheDoesNotGoWhileItIsAskedForItsShare) {
  const search_report report = explore<leaver_beside_evener>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(BudgetTicketSchedTest, LeaverThatDoesNotWaitIsCaught) {
  EXPECT_TRUE(mutant_is_killed<leaver_beside_evener>(mutant::rest_not_awaited));
}

}  // namespace
}  // namespace larder::sched

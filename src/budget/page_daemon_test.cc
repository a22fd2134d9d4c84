// SPDX-License-Identifier: Apache-2.0
//
// The page daemon, on its own thread: what wakes it, how far it goes, when it gives up, and what it tells.
#include "budget/page_daemon.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "budget/page_daemon_test.h"
#include "budget/round.h"
#include "budget/tree.h"
#include "os/clock.h"
#include "os/fault.h"
#include "tests/support/eventually.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::eventually;
using kind = budget_event::kind;

constexpr memory_budget::options marked{.limit = 1000_B, .high_mark_percent = 90, .low_mark_percent = 80};

TEST(PageDaemonTest, ReclaimsFromTheHighMarkDownToTheLowOne) {
  memory_budget budget("budget", marked);
  const listener heard(budget);
  store pages(budget, reclaim_stage::clean_pages);
  pages.fill(900_B);
  EXPECT_EQ(pages.calls, 0U);
  EXPECT_EQ(budget.used(), 900_B) << "the mark itself is not above it";
  pages.fill(1_B);
  ASSERT_TRUE(eventually([&] { return budget.used() == 800_B; }));
  ASSERT_TRUE(eventually([&] { return !heard.all().empty(); }));
  ASSERT_TRUE(eventually([&] { return tests::stat_value("memory_budget/budget", "daemon_reclaimed_bytes") == 101U; }));
  const auto first = heard.all().front();
  EXPECT_EQ(first.what, kind::pressure);
  EXPECT_EQ(first.budget, "budget");
  EXPECT_EQ(first.used, 901_B);
  EXPECT_EQ(first.wanted, 101_B);
  EXPECT_FALSE(first.on_this_thread);
  EXPECT_GT(tests::stat_value("memory_budget/budget", "daemon_rounds"), 0U);
}

TEST(PageDaemonTest, ComesEachTimeTheMarkIsPassed) {
  memory_budget budget("budget", marked);
  const listener heard(budget);
  store pages(budget, reclaim_stage::clean_pages);
  for (std::size_t i = 1; i <= 20; ++i) {
    pages.fill(bytes{901 - pages.held});
    ASSERT_TRUE(eventually([&] { return budget.used() == 800_B; })) << i;
    ASSERT_TRUE(eventually([&] { return heard.count(kind::pressure) == i; })) << i;
    // The visit ends under the mutex of the tree, which the audit takes: what comes next is not part of it.
    ASSERT_TRUE(eventually([&] { return tests::stat_value("memory_budget/budget", "daemon_rounds") == i; })) << i;
    budget.audit();
  }
  EXPECT_EQ(heard.all().size(), 20U);
}

TEST(PageDaemonTest, ServesAParentOverItsChildren) {
  memory_budget parent("parent", marked);
  memory_budget left("left", {}, &parent);
  memory_budget right("right", {.limit = 500_B, .high_mark_percent = 50, .low_mark_percent = 10}, &parent);
  const listener heard(parent);
  store of_left(left, reclaim_stage::clean_pages);
  store of_right(right, reclaim_stage::dirty_pages);
  of_left.fill(650_B);
  of_right.fill(250_B);
  EXPECT_EQ(of_left.calls + of_right.calls, 0U);
  of_right.fill(1_B);
  ASSERT_TRUE(eventually([&] { return right.used() == 50_B; })) << "its own marks";
  ASSERT_TRUE(eventually([&] { return parent.used() <= 800_B; }));
  ASSERT_TRUE(eventually([&] { return heard.count(kind::pressure) >= 1; }));
  ASSERT_TRUE(eventually([&] { return heard.count(kind::pressure) == 2 || parent.used() < 800_B; }))
      << "a parent hears of those below; unless what it had over went with theirs";
}

TEST(PageDaemonTest, LeavesTheLastResortToThoseWhoWait) {
  memory_budget budget("budget", marked);
  const listener heard(budget);
  store arrays(budget, reclaim_stage::last_resort);
  arrays.fill(950_B);
  ASSERT_TRUE(eventually([&] { return heard.count(kind::stalled) == 1; }));
  EXPECT_EQ(arrays.calls, 0U);
  ASSERT_TRUE(budget.charge(100_B));
  EXPECT_EQ(arrays.held, 900U);
  budget.release(100_B);
}

// KF-46: above the mark with nothing to reclaim and nobody who waits, it does not spin; KF-50: and pauses longer and
// longer while charges go on.
TEST(PageDaemonTest, RestsWhenNothingCanBeReclaimed) {
  memory_budget budget("budget", marked);
  store none(budget, reclaim_stage::clean_pages);
  const listener heard(budget);
  ASSERT_TRUE(budget.try_charge(950_B));
  ASSERT_TRUE(eventually([&] { return none.calls == 1; }));
  const time_point began = os::now();
  while (os::now() < began + 300ms) {
    ASSERT_TRUE(budget.try_charge(1_B));
    budget.release(1_B);
  }
  const unsigned busy = none.calls;
  EXPECT_LE(busy, 7U) << "8 + 16 + 32 + 64 + 128 ms are more than 240";
  EXPECT_GE(busy, 2U);
  std::this_thread::sleep_for(100ms);
  const unsigned after = none.calls;
  EXPECT_LE(after, busy + 1);
  EXPECT_EQ(heard.count(kind::pressure), 1U);
  EXPECT_EQ(heard.count(kind::stalled), 1U) << "once, until it finds something again";
  budget.release(950_B);
}

TEST(PageDaemonTest, GoesOnOnceThereIsSomethingAgain) {
  memory_budget budget("budget", marked);
  const listener heard(budget);
  ASSERT_TRUE(budget.try_charge(950_B));
  ASSERT_TRUE(eventually([&] { return heard.count(kind::stalled) == 1; }));
  store pages(budget, reclaim_stage::clean_pages);
  budget.release(200_B);
  pages.fill(200_B);
  // It hears of the next charge after its pause.
  ASSERT_TRUE(eventually([&] {
    if (budget.try_charge(1_B)) budget.release(1_B);
    return pages.held == 50 || pages.held == 49;
  }));
  budget.release(750_B);
}

// What a page cache takes for itself ends at the mark; what others lack does not.
TEST(PageDaemonTest, SpareChargesEndAtTheHighMark) {
  memory_budget parent("parent", marked);
  memory_budget child("child", {.limit = 980_B, .reserve = 80_B, .high_mark_percent = 80}, &parent);
  EXPECT_TRUE(child.try_charge_spare(720_B)) << "80 % of 900";
  EXPECT_FALSE(child.try_charge_spare(1_B));
  EXPECT_EQ(parent.used(), 720_B);
  EXPECT_TRUE(parent.try_charge_spare(180_B));
  EXPECT_FALSE(parent.try_charge_spare(1_B));
  EXPECT_TRUE(parent.try_charge(50_B));
  EXPECT_TRUE(child.try_charge(50_B));
  child.release(770_B);
  parent.release(230_B);
  parent.audit();
}

TEST(PageDaemonTest, ALimitThatIsLoweredIsReclaimedDownTo) {
  memory_budget budget("budget", {.limit = 10_MiB, .high_mark_percent = 100});
  const listener heard(budget);
  store pages(budget, reclaim_stage::clean_pages);
  store arrays(budget, reclaim_stage::last_resort);
  pages.fill(8_MiB);
  arrays.fill(2_MiB);
  ASSERT_TRUE(budget.set_limit(1_MiB));
  EXPECT_EQ(budget.wanted_limit(), 1_MiB);
  ASSERT_TRUE(eventually([&] { return budget.limit() == 1_MiB; }));
  EXPECT_LE(budget.used(), 1_MiB);
  EXPECT_EQ(pages.held, 0U);
  EXPECT_EQ(arrays.held, (1_MiB).count) << "all stages, for the limit is set";
  ASSERT_TRUE(eventually([&] { return heard.count(kind::limit_lowered) == 1; }));
  EXPECT_EQ(heard.count(kind::pressure), 0U);
  EXPECT_EQ(heard.all().back().limit, 1_MiB);
}

TEST(PageDaemonTest, ALimitGoesOnComingDownWhenTheUserReleases) {
  memory_budget budget("budget", {.limit = 1000_B});
  const listener heard(budget);
  ASSERT_TRUE(budget.try_charge(1000_B));
  ASSERT_TRUE(budget.set_limit(300_B));
  ASSERT_TRUE(eventually([&] { return heard.count(kind::stalled) == 1; }));
  EXPECT_EQ(budget.limit(), 1000_B);
  budget.release(600_B);
  EXPECT_EQ(budget.limit(), 400_B);
  EXPECT_EQ(heard.count(kind::limit_lowered), 0U);
  budget.release(400_B);
  EXPECT_EQ(budget.limit(), 300_B);
  ASSERT_TRUE(eventually([&] { return heard.count(kind::limit_lowered) == 1; }));
}

TEST(PageDaemonTest, FailedChargesAreToldWithTheAccount) {
  memory_budget parent("parent", {.limit = 1000_B});
  memory_budget child("child", {.limit = 500_B}, &parent);
  const listener heard(parent);
  ASSERT_TRUE(child.try_charge(400_B));
  EXPECT_EQ(child.charge(501_B).error(), std::errc::not_enough_memory);
  EXPECT_EQ(child.charge(101_B, os::now() + 1ms).error(), std::errc::timed_out);
  ASSERT_EQ(heard.count(kind::out_of_memory), 2U);
  for (const auto& each : heard.all()) {
    if (each.what != kind::out_of_memory) continue;
    EXPECT_EQ(each.budget, "child");
    EXPECT_EQ(each.used, 400_B);
    EXPECT_EQ(each.limit, 500_B);
    EXPECT_TRUE(each.on_this_thread);
    ASSERT_TRUE(each.account);
    EXPECT_EQ(each.account->other, 400_B);
  }
  EXPECT_EQ(heard.all()[0].wanted, 501_B);
  EXPECT_EQ(heard.all()[1].wanted, 101_B);
  child.release(400_B);
}

TEST(PageDaemonTest, NobodyIsToldOnceTheListenerIsTakenAway) {
  memory_budget budget("budget", {.limit = 100_B});
  std::atomic<bool> inside{false};
  std::atomic<bool> go_on{false};
  std::atomic<unsigned> calls{0};
  budget.on_event([&](const budget_event&) {
    ++calls;
    inside = true;
    while (!go_on) std::this_thread::yield();
  });
  std::thread failing([&] { EXPECT_FALSE(budget.charge(101_B)); });
  while (!inside) std::this_thread::yield();
  std::atomic<bool> removed{false};
  std::thread remover([&] {
    budget.on_event({});
    removed = true;
  });
  std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(removed) << "while it is being called";
  go_on = true;
  remover.join();
  failing.join();
  EXPECT_FALSE(budget.charge(101_B));
  EXPECT_EQ(calls, 1U);
}

TEST(PageDaemonDeathTest, ListenerThatWaitsForMemoryDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        memory_budget budget("budget", {.limit = 100_B});
        budget.on_event([&](const budget_event&) { static_cast<void>(budget.charge(200_B)); });
        budget.on_event([&](const budget_event&) {
          static_cast<void>(budget.try_charge(100_B));
          static_cast<void>(budget.charge(1_B));
        });
        static_cast<void>(budget.charge(101_B));
      },
      "budget \"budget\": a reclaimer waits for memory");
}

TEST(PageDaemonDeathTest, MarksAreChecked) {
  EXPECT_DEATH(memory_budget("budget", {.limit = 1_MiB, .high_mark_percent = 101}),
               "budget \"budget\": a low mark of .* and a high mark of 101 percent: expected low <= high <= 100");
  EXPECT_DEATH(memory_budget("budget", {.limit = 1_MiB, .high_mark_percent = 50, .low_mark_percent = 51}),
               "a low mark of 51 and a high mark of 50 percent");
}

// A reclaimer that says each time that there is something, and has nothing (KF-50: a page whose write fails at once).
TEST(PageDaemonTest, BrokenPromisesBringPauses) {
  memory_budget budget("budget", {.limit = 100_B});
  const listener heard(budget);
  struct liar final : reclaimer {
    explicit liar(memory_budget& of) : budget(of) { budget.add_reclaimer(*this, reclaim_stage::dirty_pages); }
    ~liar() { budget.remove_reclaimer(*this); }
    bytes reclaim(bytes) override {
      ++calls;
      budget.note_reclaimable();
      return {};
    }
    memory_budget& budget;
    std::atomic<unsigned> calls{0};
  } lies(budget);
  ASSERT_TRUE(budget.try_charge(100_B));
  std::thread waiter([&] { EXPECT_TRUE(budget.charge(10_B)); });
  ASSERT_TRUE(eventually([&] { return heard.count(kind::stalled) == 1; }));
  std::this_thread::sleep_for(100ms);
  const unsigned calls = lies.calls;
  EXPECT_GE(calls, 9U);
  EXPECT_LE(calls, 8U + 1 + 12)
      << "1 + 2 + 4 + ... + 64 ms are more than 100, and a slow machine may sleep for seconds";
  budget.release(10_B);
  waiter.join();
  budget.release(100_B);
  budget.audit();
}

// Who waits may meet a reclaimer that the daemon is inside, and it may be the only one (KF-49).
TEST(PageDaemonTest, WhoPassedOverItsReclaimerIsToldToAskAgain) {
  memory_budget budget("budget", marked);
  struct slow final : reclaimer {
    explicit slow(memory_budget& of) : budget(of) { budget.add_reclaimer(*this, reclaim_stage::clean_pages); }
    ~slow() {
      budget.remove_reclaimer(*this);
      budget.release(bytes{held});
    }
    bytes reclaim(bytes wanted) override {
      inside = true;
      while (!go_on) std::this_thread::yield();
      const bytes given{std::min<std::uint64_t>(held, wanted.count)};
      held -= given.count;
      budget.release(given);
      return given;
    }
    memory_budget& budget;
    std::atomic<std::uint64_t> held{600};
    std::atomic<bool> inside{false};
    std::atomic<bool> go_on{false};
  } source(budget);
  ASSERT_TRUE(budget.try_charge(950_B));
  while (!source.inside) std::this_thread::yield();
  std::thread waiter([&] { EXPECT_TRUE(budget.charge(400_B)); });
  ASSERT_TRUE(eventually([&] { return budget.waits() == 1; }));
  std::this_thread::sleep_for(5ms);  // it has asked, and sleeps
  source.go_on = true;
  waiter.join();
  budget.release(350_B + 400_B);
}

TEST(PageDaemonTest, SeveralMayTakeAListenerAwayAtOnce) {
  memory_budget budget("budget", {.limit = 100_B});
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> inside{false};
    std::atomic<bool> go_on{false};
    budget.on_event([&](const budget_event&) {
      inside = true;
      while (!go_on) std::this_thread::yield();
    });
    std::thread failing([&] { EXPECT_FALSE(budget.charge(101_B)); });
    while (!inside) std::this_thread::yield();
    std::vector<std::thread> removers;
    for (int i = 0; i < 3; ++i) removers.emplace_back([&] { budget.on_event({}); });
    std::this_thread::sleep_for(1ms);
    go_on = true;
    for (std::thread& each : removers) each.join();
    failing.join();
  }
}

TEST(PageDaemonTest, AListenerMayEndTheProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    memory_budget budget("budget", marked);
    budget.on_event([](const budget_event&) { std::exit(7); });
    static_cast<void>(budget.try_charge(950_B));
    for (;;) ::pause();
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// A lower limit that holds is told by the daemon, which may come when the budget ends.
TEST(PageDaemonTest, BudgetsEndWhileTheirLimitIsToBeTold) {
  memory_budget parent("parent");
  const listener heard(parent);
  for (int i = 0; i < 2000; ++i) {
    memory_budget brief("brief", {.limit = 1000_B}, &parent);
    ASSERT_TRUE(brief.set_limit(500_B));
    if (i % 4 == 0) std::this_thread::yield();
  }
  for (const auto& each : heard.all()) EXPECT_EQ(each.limit, 500_B);
}

TEST(PageDaemonTest, WorksInAForkedChild) {
  memory_budget budget("budget", marked);
  store pages(budget, reclaim_stage::clean_pages);
  pages.fill(901_B);
  ASSERT_TRUE(eventually([&] { return budget.used() == 800_B; }));
  const pid_t child = ::fork();
  if (child == 0) {
    pages.fill(150_B);
    ::_exit(eventually([&] { return budget.used() == 800_B; }) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Trees come and go while the daemon is at work in them.
TEST(PageDaemonTest, BudgetsEndWhileItIsAtWork) {
  for (int i = 0; i < 200; ++i) {
    memory_budget budget("brief", marked);
    memory_budget child("child", marked, &budget);
    store pages(child, reclaim_stage::clean_pages, 1_B);
    pages.fill(bytes{901 + static_cast<std::uint64_t>(i % 90)});
  }
}

TEST(PageDaemonTest, CallersMayAskTheProcessesBudget) {
  store pages(memory_budget::process(), reclaim_stage::clean_pages);
  pages.fill(100_B);
  EXPECT_EQ(larder::reclaim(40_B), 40_B);
  EXPECT_EQ(pages.held, 60U);
}

TEST(PageDaemonTest, PausesDoubleUpToASecond) {
  EXPECT_EQ(budget::pause_after(0), 1ms);
  EXPECT_EQ(budget::pause_after(3), 8ms);
  EXPECT_EQ(budget::pause_after(10), 1024ms);
  EXPECT_EQ(budget::pause_after(1'000'000), 1024ms);
}

}  // namespace
}  // namespace larder

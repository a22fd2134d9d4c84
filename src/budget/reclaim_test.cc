// SPDX-License-Identifier: Apache-2.0
#include "budget/reclaim.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "os/clock.h"
#include "os/parker.h"
#include "tests/support/eventually.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::eventually;

// Holds a charge and gives of it what is wanted; notes what it was asked.
class hoard final : public reclaimer {
 public:
  hoard(memory_budget& budget, bytes amount, reclaim_stage stage = reclaim_stage::user) : budget_(budget) {
    EXPECT_TRUE(budget_.try_charge(amount));
    held_ = amount.count;
    budget_.add_reclaimer(*this, stage);
  }
  ~hoard() {
    budget_.remove_reclaimer(*this);
    budget_.release({held_});
  }
  bytes reclaim(bytes wanted) override {
    ++calls;
    last_wanted = wanted.count;
    if (when_asked) when_asked();
    const bytes given{std::min<std::uint64_t>({held_, wanted.count, at_most})};
    held_ -= given.count;
    budget_.release(given);
    return given;
  }
  bytes held() const { return {held_}; }

  std::function<void()> when_asked;  // set before the first call
  std::uint64_t at_most = unlimited.count;
  std::atomic<unsigned> calls{0};
  std::atomic<std::uint64_t> last_wanted{0};

 private:
  memory_budget& budget_;
  std::atomic<std::uint64_t> held_{0};
};

TEST(ReclaimTest, AsksForExactlyWhatIsLacking) {
  memory_budget budget("budget", {.limit = 100_B, .reserve = 10_B});
  hoard cache(budget, 70_B);
  ASSERT_TRUE(budget.charge(50_B));
  EXPECT_EQ(cache.calls, 1U);
  EXPECT_EQ(cache.last_wanted, 30U);
  EXPECT_EQ(cache.held(), 40_B);
  EXPECT_EQ(budget.used(), 90_B);
  budget.release(50_B);
}

// KF-47: need drives it, however empty the budget is: here 10 % are in use.
TEST(ReclaimTest, LargeChargeIsServedWhateverTheFill) {
  memory_budget budget("budget", {.limit = 100_B});
  const hoard cache(budget, 10_B);
  ASSERT_TRUE(budget.charge(95_B));
  EXPECT_EQ(cache.last_wanted, 5U);
  budget.release(95_B);
}

TEST(ReclaimTest, StagesGoInTheirOrderAndStopWhenTheNeedIsMet) {
  memory_budget budget("budget", {.limit = 100_B});
  std::string order;
  const auto note = [&order](char letter) { return [&order, letter] { order += letter; }; };
  hoard last(budget, 20_B, reclaim_stage::last_resort);
  hoard dirty(budget, 10_B, reclaim_stage::dirty_pages);
  hoard pages(budget, 20_B, reclaim_stage::clean_pages);
  hoard user(budget, 10_B, reclaim_stage::user);
  hoard slabs(budget, 20_B, reclaim_stage::empty_slabs);
  hoard more_pages(budget, 20_B, reclaim_stage::clean_pages);
  dirty.when_asked = note('d');
  last.when_asked = note('l');
  pages.when_asked = note('p');
  user.when_asked = note('u');
  slabs.when_asked = note('s');
  more_pages.when_asked = note('q');
  ASSERT_TRUE(budget.charge(50_B));
  EXPECT_EQ(order, "spq");
  EXPECT_EQ(slabs.last_wanted, 50U);
  EXPECT_EQ(pages.last_wanted, 30U);
  EXPECT_EQ(more_pages.last_wanted, 10U);
  ASSERT_TRUE(budget.charge(50_B));
  EXPECT_EQ(order, "spqspqdul");
  budget.release(100_B);
}

// Each step is bounded, so that between two of them it can be looked at the need.
TEST(ReclaimTest, MuchIsAskedForInBoundedSteps) {
  memory_budget budget("budget", {.limit = 10_MiB});
  hoard first(budget, 600_KiB, reclaim_stage::clean_pages);
  hoard second(budget, 5_MiB, reclaim_stage::user);
  std::uint64_t most = 0;
  first.when_asked = [&] { most = std::max<std::uint64_t>(most, first.last_wanted); };
  second.when_asked = [&] { most = std::max<std::uint64_t>(most, second.last_wanted); };
  EXPECT_EQ(budget.reclaim(1_MiB), 1_MiB);
  EXPECT_EQ(most, reclaim_chunk.count);
  EXPECT_EQ(first.calls, 3U) << "two whole steps, and one that shows the end";
  EXPECT_EQ(first.held(), 0_B);
  EXPECT_EQ(second.calls, 2U);
}

TEST(ReclaimTest, StepsEndWhenTheNeedHasGone) {
  memory_budget budget("budget", {.limit = 10_MiB});
  hoard cache(budget, 5_MiB);
  ASSERT_TRUE(budget.try_charge(5_MiB));
  cache.when_asked = [&] {
    if (cache.calls == 2) budget.release(5_MiB);  // somebody gives back what is waited for
  };
  ASSERT_TRUE(budget.charge(4_MiB));
  EXPECT_EQ(cache.calls, 2U);
  EXPECT_GE(cache.held(), 4_MiB);
  budget.release(4_MiB);
}

TEST(ReclaimTest, StepsEndAtTheDeadline) {
  memory_budget budget("budget", {.limit = 10_MiB});
  hoard cache(budget, 10_MiB);
  const time_point deadline = os::now() + 200ms;
  cache.when_asked = [&] {
    if (cache.calls == 2) std::this_thread::sleep_until(deadline);
  };
  EXPECT_EQ(budget.charge(8_MiB, deadline).error(), error_from(ETIMEDOUT));
  EXPECT_EQ(cache.calls, 2U);
}

TEST(ReclaimTest, OnlyWhatIsWithinTheFullNodeIsAsked) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget left("left", {.limit = 50_B}, &root);
  memory_budget below_left("below left", {}, &left);
  memory_budget right("right", {.limit = 50_B}, &root);
  const hoard in_left(left, 20_B);
  const hoard in_below(below_left, 20_B);
  const hoard in_right(right, 40_B);
  const hoard in_root(root, 10_B);
  ASSERT_TRUE(left.charge(40_B));  // 90 used, left is full
  EXPECT_EQ(in_left.calls, 1U);
  EXPECT_EQ(in_below.calls, 1U);
  EXPECT_EQ(in_right.calls, 0U);
  EXPECT_EQ(in_root.calls, 0U);
  ASSERT_TRUE(root.charge(30_B));  // now the root is full: everyone is asked
  EXPECT_GE(in_right.calls + in_root.calls, 1U);
  left.release(40_B);
  root.release(30_B);
}

// KF-46: reclaimers that have nothing are asked once, and then all sleep until something changes.
TEST(ReclaimTest, NobodySpinsWhenNothingCanBeReclaimed) {
  memory_budget budget("budget", {.limit = 100_B});
  hoard empty(budget, 0_B);
  ASSERT_TRUE(budget.try_charge(100_B));
  std::vector<std::thread> waiters;
  for (unsigned i = 0; i < 3; ++i) {
    waiters.emplace_back([&] { EXPECT_TRUE(budget.charge(10_B)); });
    ASSERT_TRUE(eventually([&] { return budget.waits() == i + 1; }));
  }
  ASSERT_TRUE(eventually([&] { return empty.calls > 0; }));
  std::this_thread::sleep_for(20ms);
  const unsigned settled = empty.calls;
  EXPECT_LE(settled, 3U) << "one look for each that came";
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(empty.calls, settled);
  budget.note_reclaimable();
  EXPECT_TRUE(eventually([&] { return empty.calls == settled + 1; }));
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(empty.calls, settled + 1) << "and sleep again";
  budget.release(30_B);
  for (std::thread& waiter : waiters) waiter.join();
  budget.release(100_B);
}

TEST(ReclaimTest, NoteReclaimableLetsAWaiterAskAgain) {
  memory_budget budget("budget", {.limit = 100_B});
  std::atomic<bool> pinned{true};
  hoard pages(budget, 100_B, reclaim_stage::clean_pages);
  pages.when_asked = [&] { pages.at_most = pinned ? 0 : unlimited.count; };
  budget.note_reclaimable();  // nobody waits: no matter
  std::thread waiter([&] { EXPECT_TRUE(budget.charge(60_B)); });
  ASSERT_TRUE(eventually([&] { return pages.calls == 1; }));
  pinned = false;
  budget.note_reclaimable();
  waiter.join();
  EXPECT_EQ(pages.held(), 40_B);
  budget.release(60_B);
}

// Unpinning races with the waiter's last look: none may be left asleep.
TEST(ReclaimTest, NoNoteIsLost) {
  memory_budget budget("budget", {.limit = 100_B});
  for (int round = 0; round < 2'000; ++round) {
    std::atomic<bool> pinned{true};
    hoard pages(budget, 100_B, reclaim_stage::clean_pages);
    pages.when_asked = [&] { pages.at_most = pinned ? 0 : unlimited.count; };
    std::thread unpinner([&] {
      pinned = false;
      budget.note_reclaimable();
    });
    const auto charged = budget.charge(100_B, os::now() + 10s);
    unpinner.join();
    ASSERT_TRUE(charged) << "in round " << round;
    budget.release(100_B);
  }
}

TEST(ReclaimTest, NewReclaimerHelpsThoseWhoWaitAlready) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {}, &root);
  ASSERT_TRUE(leaf.try_charge(100_B));
  // Gives what was charged before it came.
  class late final : public reclaimer {
   public:
    explicit late(memory_budget& budget) : budget_(budget) {}
    bytes reclaim(bytes wanted) override {
      budget_.release(wanted);
      return wanted;
    }

   private:
    memory_budget& budget_;
  } source(leaf);
  std::thread waiter([&] { EXPECT_TRUE(root.charge(40_B)); });
  ASSERT_TRUE(eventually([&] { return root.waits() == 1; }));
  std::this_thread::sleep_for(20ms);  // it sleeps without hope by now
  leaf.add_reclaimer(source, reclaim_stage::user);
  waiter.join();
  leaf.remove_reclaimer(source);
  leaf.release(60_B);
  root.release(40_B);
}

// A reclaimer that claims to give but never frees anything keeps its asker busy at most until the deadline.
TEST(ReclaimTest, DeadlineEndsReclaimingThatAlwaysGivesALittle) {
  memory_budget budget("budget", {.limit = 100_B});
  class boaster final : public reclaimer {
   public:
    bytes reclaim(bytes) override {
      ++calls;
      return 1_B;
    }
    std::atomic<unsigned> calls{0};
  } source;
  budget.add_reclaimer(source, reclaim_stage::user);
  ASSERT_TRUE(budget.try_charge(100_B));
  const time_point deadline = os::now() + 30ms;
  EXPECT_EQ(budget.charge(1_B, deadline).error(), error_from(ETIMEDOUT));
  EXPECT_LT(os::now(), deadline + 5s);
  const unsigned calls = source.calls;
  EXPECT_EQ(budget.charge(1_B, os::now()).error(), error_from(ETIMEDOUT));
  EXPECT_EQ(source.calls, calls) << "past the deadline nobody is asked";
  budget.remove_reclaimer(source);
  budget.release(100_B);
}

TEST(ReclaimTest, SmallBitesAddUp) {
  memory_budget budget("budget", {.limit = 100_B});
  hoard cache(budget, 100_B);
  cache.at_most = 7;
  ASSERT_TRUE(budget.charge(50_B, os::now() + 10s));
  EXPECT_EQ(cache.calls, 8U);
  budget.release(50_B);
}

// Who has its memory wakes the next to reclaim for itself.
TEST(ReclaimTest, LeaderThatIsServedHandsOn) {
  memory_budget budget("budget", {.limit = 100_B});
  hoard cache(budget, 100_B);
  cache.when_asked = [&] { EXPECT_TRUE(eventually([&] { return budget.waits() == 2; })); };
  std::thread leader([&] { EXPECT_TRUE(budget.charge(40_B)); });
  ASSERT_TRUE(eventually([&] { return cache.calls == 1; }));
  EXPECT_TRUE(budget.charge(30_B, os::now() + 10s));
  leader.join();
  EXPECT_EQ(cache.last_wanted, 30U);
  budget.release(70_B);
}

// Its round was cut short, so there is hope: the next leader asks those whom it did not.
TEST(ReclaimTest, LeaderThatRunsOutOfTimeHandsOn) {
  memory_budget budget("budget", {.limit = 100_B});
  const time_point deadline = os::now() + 1s;
  hoard slow(budget, 50_B, reclaim_stage::clean_pages);
  hoard rich(budget, 50_B, reclaim_stage::user);
  slow.at_most = 1;
  slow.when_asked = [&] {
    if (slow.calls == 1) {
      rich.at_most = 0;
      EXPECT_TRUE(eventually([&] { return budget.waits() == 2; }));
    } else {
      slow.at_most = 0;
      rich.at_most = unlimited.count;
      std::this_thread::sleep_until(deadline);
    }
  };
  std::thread leader([&] { EXPECT_EQ(budget.charge(50_B, deadline).error(), error_from(ETIMEDOUT)); });
  ASSERT_TRUE(eventually([&] { return slow.calls == 1; }));
  EXPECT_TRUE(budget.charge(30_B, os::now() + 10s));
  leader.join();
  EXPECT_EQ(rich.calls, 2U) << "by the leader before its deadline, then by the other";
  EXPECT_EQ(rich.held(), 21_B);
  budget.release(30_B);
}

// A budget may go while another's waiter is reclaiming for the whole tree: here in the midst of the leader's second
// round, which began when both waited.
TEST(ReclaimTest, BudgetWhoseWaiterLeftMayGoWhileALeaderReclaims) {
  memory_budget root("root", {.limit = 1'000_B});
  memory_budget first("first", {.limit = 100_B}, &root);
  auto second = std::make_unique<memory_budget>("second", memory_budget::options{.limit = 100_B}, &root);
  ASSERT_TRUE(second->try_charge(100_B));
  std::atomic<bool> blocked{true};
  hoard slow(first, 100_B);
  slow.when_asked = [&] {
    if (slow.calls == 1) {
      slow.at_most = 1;
      EXPECT_TRUE(eventually([&] { return second->waits() == 1; }));
    } else {
      slow.at_most = unlimited.count;
      while (blocked) std::this_thread::yield();
    }
  };
  std::thread leader([&] { EXPECT_TRUE(first.charge(10_B)); });
  ASSERT_TRUE(eventually([&] { return slow.calls == 1; }));
  std::thread brief([&] { EXPECT_EQ(second->charge(10_B, os::now() + 50ms).error(), error_from(ETIMEDOUT)); });
  ASSERT_TRUE(eventually([&] { return slow.calls == 2; }));
  brief.join();
  second->release(100_B);
  second.reset();
  blocked = false;
  leader.join();
  first.release(10_B);
}

TEST(ReclaimTest, ManyFullBudgetsAreAllServed) {
  constexpr std::size_t many = 20;
  memory_budget root("root");
  std::vector<std::unique_ptr<memory_budget>> budgets;
  std::vector<std::unique_ptr<hoard>> hoards;
  std::atomic<bool> pinned{true};
  for (std::size_t i = 0; i < many; ++i) {
    budgets.push_back(std::make_unique<memory_budget>("leaf", memory_budget::options{.limit = 100_B}, &root));
    hoards.push_back(std::make_unique<hoard>(*budgets.back(), 100_B));
    hoard& mine = *hoards.back();
    // Only the last has something to give at first.
    mine.when_asked = [&mine, &pinned, i] { mine.at_most = pinned && i + 1 < many ? 0 : unlimited.count; };
  }
  std::vector<std::thread> waiters;
  for (std::size_t i = 0; i < many; ++i) {
    waiters.emplace_back([&, i] { EXPECT_TRUE(budgets[i]->charge(50_B)); });
    ASSERT_TRUE(eventually([&] { return budgets[i]->waits() == 1; }));
  }
  waiters.back().join();
  pinned = false;
  root.note_reclaimable();
  for (std::size_t i = 0; i + 1 < many; ++i) waiters[i].join();
  for (auto& budget : budgets) budget->release(50_B);
}

TEST(ReclaimTest, ReserveIsForReclaimers) {
  memory_budget budget("budget", {.limit = 100_B, .reserve = 10_B});
  hoard cache(budget, 90_B);
  bool got_reserve = false;
  bool got_more = true;
  cache.when_asked = [&] {
    got_reserve = budget.try_charge(10_B);
    got_more = budget.try_charge(1_B);
    if (got_reserve) budget.release(10_B);
  };
  EXPECT_FALSE(budget.try_charge(1_B));
  ASSERT_TRUE(budget.charge(20_B));
  EXPECT_TRUE(got_reserve) << "though others wait";
  EXPECT_FALSE(got_more) << "the limit holds for them too";
  EXPECT_FALSE(budget.try_charge(1_B)) << "and afterwards the mark is off";
  budget.release(20_B);
}

TEST(ReclaimTest, ReclaimReturnsWhatWasGiven) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {}, &root);
  const hoard in_leaf(leaf, 30_B);
  const hoard in_root(root, 30_B);
  EXPECT_EQ(leaf.reclaim(100_B), 30_B) << "what stands above is not asked";
  EXPECT_EQ(root.reclaim(10_B), 10_B);
  EXPECT_EQ(root.reclaim(100_B), 20_B);
  EXPECT_EQ(root.reclaim(100_B), 0_B);
  EXPECT_EQ(root.used(), 0_B);
}

TEST(ReclaimTest, OneCallerAtATime) {
  memory_budget budget("budget", {.limit = 1'000_B});
  hoard cache(budget, 1'000_B);
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  cache.at_most = 1;
  cache.when_asked = [&] {
    if (++inside > 1) ++overlaps;
    std::this_thread::yield();
    --inside;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) budget.reclaim(1_B);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(overlaps, 0);
}

TEST(ReclaimTest, RemoveWaitsWhileItIsBeingAskedAndIsForEver) {
  memory_budget budget("budget", {.limit = 100_B});
  std::atomic<bool> inside{false};
  std::atomic<bool> blocked{true};
  std::atomic<bool> removed{false};
  class slow final : public reclaimer {
   public:
    explicit slow(std::function<void()> body) : body_(std::move(body)) {}
    bytes reclaim(bytes) override {
      body_();
      return {};
    }

   private:
    const std::function<void()> body_;
  };
  auto source = std::make_unique<slow>([&] {
    EXPECT_FALSE(removed);
    inside = true;
    while (blocked) std::this_thread::yield();
  });
  budget.add_reclaimer(*source, reclaim_stage::user);
  std::thread asker([&] { budget.reclaim(1_B); });
  ASSERT_TRUE(eventually([&] { return inside.load(); }));
  std::thread remover([&] {
    os::parker::current().unpark();  // a token left over must not end the wait
    budget.remove_reclaimer(*source);
    removed = true;
    source.reset();
  });
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(removed);
  blocked = false;
  remover.join();
  asker.join();
  inside = false;
  budget.reclaim(1_B);
  EXPECT_FALSE(inside);
}

TEST(ReclaimTest, PauseBeginsWhenItIsNotBeingAskedAndKeepsOthersOut) {
  memory_budget budget("budget", {.limit = 100_B});
  hoard cache(budget, 50_B);
  hoard other(budget, 20_B);
  std::atomic<bool> inside{false};
  std::atomic<bool> blocked{true};
  cache.when_asked = [&] {
    inside = true;
    while (blocked) std::this_thread::yield();
    inside = false;
  };
  std::thread asker([&] { budget.reclaim(1_B); });
  ASSERT_TRUE(eventually([&] { return inside.load(); }));
  std::thread pauser([&] {
    const budget::reclaimer_pause pause(budget, cache);
    EXPECT_FALSE(inside);
    EXPECT_EQ(cache.calls, 1U);
    EXPECT_EQ(budget.reclaim(100_B), 20_B) << "of the other";
    EXPECT_EQ(cache.calls, 1U);
  });
  std::this_thread::sleep_for(20ms);
  blocked = false;
  asker.join();
  pauser.join();
  EXPECT_EQ(budget.reclaim(100_B), 49_B);
}

TEST(ReclaimTest, ReclaimersComeAndGoWhileOthersAreAsked) {
  memory_budget budget("budget", {.limit = 10'000_B});
  std::atomic<bool> stop{false};
  std::thread asker([&] {
    while (!stop) budget.reclaim(3_B);
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 2'000; ++round) {
        const hoard brief(budget, 10_B, round % 2 == i ? reclaim_stage::clean_pages : reclaim_stage::empty_slabs);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  asker.join();
  EXPECT_EQ(budget.used(), 0_B);
}

// KF-57: a reclaimer that waits for memory waits for itself.
TEST(ReclaimDeathTest, ReclaimerThatWaitsForMemoryDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  memory_budget budget("tight", {.limit = 100_B});
  hoard cache(budget, 100_B);
  cache.when_asked = [&] { (void)budget.charge(1_B); };
  EXPECT_DEATH((void)budget.charge(10_B), "\"tight\": a reclaimer waits for memory");
  cache.when_asked = [&] { budget.reclaim(1_B); };
  EXPECT_DEATH((void)budget.charge(10_B), "\"tight\": reclaim inside a reclaimer");
}

TEST(ReclaimDeathTest, MisuseNamesTheBudget) {
  EXPECT_DEATH(
      {
        memory_budget budget("left over");
        new hoard(budget, 0_B);
      },
      "\"left over\" destroyed while a reclaimer is registered");
  EXPECT_DEATH(
      {
        memory_budget budget("empty");
        memory_budget other("other");
        hoard cache(other, 0_B);
        budget.remove_reclaimer(cache);
      },
      "\"empty\": remove_reclaimer of one that is not registered");
  EXPECT_DEATH(
      {
        const memory_budget budget("empty");
        memory_budget other("other");
        const hoard cache(other, 0_B);
        const budget::reclaimer_pause pause(budget, cache);
      },
      "\"empty\": pause of a reclaimer that is not registered");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include "budget/ticket.h"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "os/clock.h"
#include "tests/support/eventually.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::eventually;

// Stands in for a thread: counts its wake-ups.
class counting_parker final : public os::parker {
 public:
  void park() override {}
  bool park_until(time_point) override { return false; }
  void unpark() override { ++unparks; }
  bool is_parked() const override { return false; }
  int unparks = 0;
};

// A ticket with a parker of its own.
class queued_ticket {
 public:
  queued_ticket(memory_budget& budget, bytes amount) {
    os::parker::set_current(&parker_);
    ticket_.emplace(budget, amount);
    begun_ = ticket_->begin();
    ticket_->granted();
    os::parker::set_current(nullptr);
    parker_.unparks = 0;
  }
  bool granted() {
    os::parker::set_current(&parker_);
    const bool yes = ticket_->granted();
    os::parker::set_current(nullptr);
    return yes;
  }
  void take() { ticket_->take(); }
  void cancel() { ticket_.reset(); }
  int wakes() const { return parker_.unparks; }
  const result<void>& begun() const { return begun_; }

 private:
  counting_parker parker_;
  std::optional<budget_ticket> ticket_;
  result<void> begun_;
};

TEST(TicketTest, IsGrantedAtOnceWhereThereIsRoom) {
  memory_budget budget("budget", {.limit = 100_B});
  queued_ticket ticket(budget, 60_B);
  EXPECT_TRUE(ticket.begun());
  EXPECT_TRUE(ticket.granted());
  EXPECT_EQ(budget.used(), 60_B);
  ticket.take();
  ticket.cancel();
  EXPECT_EQ(budget.used(), 60_B) << "what was taken is the owner's";
  budget.release(60_B);
}

TEST(TicketTest, GivesBackWhatWasGrantedAndNotTaken) {
  memory_budget budget("budget", {.limit = 100_B});
  queued_ticket first(budget, 60_B);
  queued_ticket second(budget, 60_B);
  EXPECT_FALSE(second.granted());
  first.cancel();
  EXPECT_EQ(budget.used(), 60_B) << "handed to the second";
  second.cancel();
  EXPECT_EQ(budget.used(), 0_B) << "also if the second never looked";
}

TEST(TicketTest, ThatNeverFitsIsRefused) {
  memory_budget budget("budget", {.limit = 100_B});
  const queued_ticket ticket(budget, 101_B);
  EXPECT_EQ(ticket.begun().error(), error_from(ENOMEM));
  EXPECT_FALSE(budget.has_waiters());
}

TEST(TicketTest, WaitersAreCounted) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {}, &root);
  ASSERT_TRUE(root.try_charge(100_B));
  {
    const queued_ticket first(leaf, 1_B);
    const queued_ticket second(root, 1_B);
    EXPECT_TRUE(root.has_waiters());
    EXPECT_TRUE(leaf.has_waiters()) << "it asks about the whole tree";
    EXPECT_EQ(leaf.waits(), 1U);
    EXPECT_EQ(root.waits(), 1U);
    root.audit();
  }
  EXPECT_FALSE(root.has_waiters());
  root.release(100_B);
}

// KF-53: freed memory belongs to who waits, before its owner has even looked.
TEST(TicketTest, FreedMemoryIsHandedOverAndNotRacedFor) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(100_B));
  queued_ticket waiter(budget, 50_B);
  budget.release(10_B);
  EXPECT_FALSE(budget.try_charge(1_B)) << "who does not wait does not overtake";
  EXPECT_EQ(budget.used(), 90_B);
  budget.release(40_B);
  EXPECT_EQ(budget.used(), 100_B) << "charged for the waiter already";
  EXPECT_FALSE(budget.try_charge(1_B));
  EXPECT_EQ(waiter.wakes(), 1);
  EXPECT_TRUE(waiter.granted());
  waiter.take();
  budget.release(50_B);
  EXPECT_TRUE(budget.try_charge(50_B)) << "nobody waits any more";
  budget.release(100_B);
}

// KF-44: one release wakes those whom it serves, and nobody else.
TEST(TicketTest, ReleaseWakesNobodyInVain) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(100_B));
  std::vector<std::unique_ptr<queued_ticket>> waiters;
  for (int i = 0; i < 5; ++i) waiters.push_back(std::make_unique<queued_ticket>(budget, 10_B));
  const auto wakes = [&] {
    std::vector<int> counts;
    for (const auto& waiter : waiters) counts.push_back(waiter->wakes());
    return counts;
  };
  budget.release(9_B);
  EXPECT_EQ(wakes(), (std::vector<int>{0, 0, 0, 0, 0}));
  budget.release(1_B);
  EXPECT_EQ(wakes(), (std::vector<int>{1, 0, 0, 0, 0}));
  budget.release(20_B);
  EXPECT_EQ(wakes(), (std::vector<int>{1, 1, 1, 0, 0}));
  waiters.clear();
  budget.release(70_B);
}

// KF-44: a large request is served in its turn, however small those behind it are.
TEST(TicketTest, SmallOnesDoNotOvertakeALargeOne) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(100_B));
  queued_ticket large(budget, 90_B);
  queued_ticket small(budget, 1_B);
  for (int i = 0; i < 89; ++i) {
    budget.release(1_B);
    ASSERT_FALSE(small.granted());
    ASSERT_FALSE(large.granted());
  }
  budget.release(1_B);
  EXPECT_TRUE(large.granted());
  EXPECT_FALSE(small.granted());
  budget.release(1_B);
  EXPECT_TRUE(small.granted());
  large.cancel();
  small.cancel();
  budget.release(9_B);
}

TEST(TicketTest, CancelLetsTheOneBehindThrough) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(90_B));
  queued_ticket large(budget, 50_B);
  queued_ticket small(budget, 10_B);
  EXPECT_FALSE(small.granted());
  large.cancel();
  EXPECT_EQ(small.wakes(), 1);
  EXPECT_TRUE(small.granted());
  small.cancel();
  budget.release(90_B);
}

TEST(TicketTest, WaitForAChildsLimitHindersNobodyElse) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget left("left", {.limit = 10_B}, &root);
  memory_budget right("right", {}, &root);
  memory_budget below_left("below left", {}, &left);
  ASSERT_TRUE(left.try_charge(10_B));
  queued_ticket at_left(left, 5_B);
  EXPECT_TRUE(right.try_charge(20_B)) << "not even who does not wait is hindered";
  EXPECT_TRUE(root.try_charge(20_B));
  queued_ticket at_right(right, 30_B);
  EXPECT_TRUE(at_right.granted());
  queued_ticket under_left(below_left, 1_B);
  EXPECT_FALSE(under_left.granted());
  left.release(5_B);
  EXPECT_TRUE(at_left.granted());
  EXPECT_FALSE(under_left.granted());
  left.release(1_B);
  EXPECT_TRUE(under_left.granted());
  at_left.cancel();
  under_left.cancel();
  at_right.cancel();
  left.release(4_B);
  right.release(20_B);
  root.release(20_B);
}

TEST(TicketTest, WaitAtTheRootIsInTheOrderOfTheWholeTree) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget left("left", {}, &root);
  memory_budget right("right", {}, &root);
  ASSERT_TRUE(root.try_charge(100_B));
  queued_ticket first(left, 60_B);
  queued_ticket second(right, 10_B);
  root.release(50_B);
  EXPECT_FALSE(first.granted());
  EXPECT_FALSE(second.granted()) << "its own child has room, but at the root it is second";
  EXPECT_FALSE(right.try_charge(1_B));
  root.release(20_B);
  EXPECT_TRUE(first.granted());
  EXPECT_TRUE(second.granted());
  first.cancel();
  second.cancel();
  root.release(30_B);
}

TEST(TicketTest, RefusedChargeThatTouchedAChildHandsTheChildOn) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {.limit = 50_B}, &root);
  ASSERT_TRUE(leaf.try_charge(50_B));
  queued_ticket waiter(leaf, 10_B);
  ASSERT_TRUE(root.try_charge(50_B));
  EXPECT_FALSE(leaf.try_charge(1_B));
  leaf.release(9_B);
  EXPECT_FALSE(waiter.granted());
  leaf.release(1_B);
  EXPECT_TRUE(waiter.granted());
  waiter.cancel();
  leaf.release(40_B);
  root.release(50_B);
}

TEST(TicketDeathTest, TakeOfWhatWasNotGrantedDies) {
  memory_budget budget("budget", {.limit = 100_B});
  budget_ticket ticket(budget, 1_B);
  EXPECT_DEATH(ticket.take(), "take of a ticket that was not granted");
}

TEST(ChargeTest, DeadlineEndsTheWaitAndLetsTheOneBehindThrough) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(90_B));
  std::atomic<bool> through{false};
  std::thread behind;
  const time_point deadline = os::now() + 50ms;
  std::thread large([&] {
    const auto charged = budget.charge(50_B, deadline);
    EXPECT_EQ(charged.error(), error_from(ETIMEDOUT));
    EXPECT_GE(os::now(), deadline);
  });
  ASSERT_TRUE(eventually([&] { return budget.waits() == 1; }));
  behind = std::thread([&] {
    EXPECT_TRUE(budget.charge(10_B));
    through = true;
  });
  large.join();
  EXPECT_TRUE(eventually([&] { return through.load(); }));
  behind.join();
  EXPECT_EQ(budget.used(), 100_B);
  EXPECT_FALSE(budget.has_waiters());
  budget.release(100_B);
}

TEST(ChargeTest, DeadlineThatHasPassedIsNoWait) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(100_B));
  EXPECT_EQ(budget.charge(1_B, os::now() - 1s).error(), error_from(ETIMEDOUT));
  EXPECT_EQ(budget.charge(1_B, os::now()).error(), error_from(ETIMEDOUT));
  EXPECT_FALSE(budget.has_waiters());
  budget.release(100_B);
}

// Each needs more than half, so they go one by one; whoever is served notes its number.
TEST(ChargeTest, ManyThreadsAreServedInTheOrderInWhichTheyCame) {
  constexpr unsigned many = 24;
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {.limit = 100_B}, &root);
  ASSERT_TRUE(root.try_charge(100_B));
  std::vector<unsigned> order;  // guarded by the budget: one holds it at a time
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < many; ++number) {
    threads.emplace_back([&, number] {
      memory_budget& budget = number % 2 == 0 ? root : leaf;
      const bytes amount{number % 3 == 0 ? 100U : 51U + number};
      EXPECT_TRUE(budget.charge(amount));
      order.push_back(number);
      budget.release(amount);
    });
    ASSERT_TRUE(eventually([&] { return root.waits() + leaf.waits() == number + 1; }));
  }
  root.release(100_B);
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(order.size(), many);
  for (unsigned number = 0; number < many; ++number) EXPECT_EQ(order[number], number);
  EXPECT_EQ(root.used(), 0_B);
}

// KF-44: threads that never stop taking and giving back small amounts do not keep a large one out.
TEST(ChargeTest, LargeChargeIsNotStarvedByAStreamOfSmallOnes) {
  memory_budget budget("budget", {.limit = 100_B});
  std::atomic<bool> stop{false};
  std::vector<std::thread> small;
  for (int i = 0; i < 3; ++i) {
    small.emplace_back([&] {
      while (!stop) {
        EXPECT_TRUE(budget.charge(30_B));
        std::this_thread::yield();
        budget.release(30_B);
      }
    });
  }
  for (int round = 0; round < 200; ++round) {
    const auto charged = budget.charge(100_B, os::now() + 20s);
    ASSERT_TRUE(charged) << charged.error().message();
    ASSERT_EQ(budget.used(), 100_B);
    budget.release(100_B);
  }
  stop = true;
  for (std::thread& thread : small) thread.join();
  EXPECT_EQ(budget.used(), 0_B);
}

}  // namespace
}  // namespace larder

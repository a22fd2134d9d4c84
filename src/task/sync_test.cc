// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/sync.h>

#include "tests/support/eventually.h"
#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

time_point now() { return std::chrono::steady_clock::now(); }

using tests::run_on_all;
using tests::share;

class MutexTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, MutexTest, testing::Values(1, 2, 4), tests::name_of_workers);
class ConditionTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, ConditionTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(MutexTest, ExcludesTasksAndThreads) {
  mutex guard;
  int counter = 0;  // guarded by `guard`
  constexpr int rounds = 2000 / share;
  run_on_all(*runtime_, 6, 3, [&](int number) {
    for (int i = 0; i < rounds; ++i) {
      const std::lock_guard<mutex> held(guard);
      const int seen = counter;
      if ((i + number) % 64 == 0) this_task::yield();
      counter = seen + 1;
    }
  });
  EXPECT_EQ(counter, 9 * rounds);
}

TEST_P(MutexTest, HeldAcrossASleepParksTheOthersAndNotTheirWorker) {
  on_worker_0([this] {
    mutex guard;
    bool other_worked = false;
    guard.lock();
    task waiting = runtime_->spawn_on(0, [&] { const std::lock_guard<mutex> held(guard); });
    task working = runtime_->spawn_on(0, [&] { other_worked = true; });
    this_task::sleep_for(2ms);
    EXPECT_TRUE(other_worked);
    EXPECT_FALSE(waiting.done());
    working.join();
    guard.unlock();
    waiting.join();
  });
}

TEST_P(MutexTest, IsHandedToWaitersInTheOrderOfTheirComing) {
  mutex guard;
  std::vector<int> order;  // guarded by `guard`
  on_worker_0([&] {
    guard.lock();
    std::vector<task> waiting;
    for (int i = 0; i < 20; ++i) {
      waiting.push_back(runtime_->spawn_on(0, [&, i] {
        const std::lock_guard<mutex> held(guard);
        order.push_back(i);
      }));
    }
    for (int i = 0; i < 3; ++i) this_task::yield();  // they all queue, on this worker, in the order of their start
    guard.unlock();
    guard.lock();  // behind them all
    order.push_back(20);
    guard.unlock();
    for (task& each : waiting) each.join();
  });
  ASSERT_EQ(order.size(), 21U);
  for (int i = 0; i <= 20; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST_P(MutexTest, TryLockTakesOnlyAFreeMutex) {
  mutex guard;
  EXPECT_TRUE(guard.try_lock());
  EXPECT_FALSE(guard.try_lock());
  on_worker_0([&] { EXPECT_FALSE(guard.try_lock()); });
  guard.unlock();
  EXPECT_TRUE(guard.try_lock());
  guard.unlock();
}

TEST_P(MutexTest, TryLockUntilGivesUpAtItsDeadlineAndIsHandedTheMutexBefore) {
  mutex guard;
  const auto try_it = [&] {
    const time_point deadline = now() + 3ms;
    EXPECT_FALSE(guard.try_lock_until(deadline));
    EXPECT_GE(now(), deadline);
    EXPECT_FALSE(guard.try_lock_until(now() - 1h)) << "a deadline in the past";
    const std::unique_lock<mutex> not_held(guard, now() + 1ms);
    EXPECT_FALSE(not_held.owns_lock());
  };
  guard.lock();
  try_it();
  on_worker_0(try_it);
  task waiting = runtime_->spawn_on(0, [&] {
    EXPECT_TRUE(guard.try_lock_until(now() + 1h));
    guard.unlock();
  });
  std::this_thread::sleep_for(1ms);
  guard.unlock();
  waiting.join();
  EXPECT_TRUE(guard.try_lock_until(now() - 1h)) << "it is free";
  guard.unlock();
}

// Deadlines that pass while the mutex is handed over: it is held by one, or free, whatever comes first.
TEST_P(MutexTest, DeadlinesRacingUnlocksLoseNothing) {
  mutex guard;
  int counter = 0;  // guarded by `guard`
  std::atomic<int> gave_up{0};
  constexpr int rounds = 1000 / share;
  run_on_all(*runtime_, 4, 3, [&](int number) {
    tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
    for (int i = 0; i < rounds; ++i) {
      if (!guard.try_lock_until(now() + std::chrono::microseconds(random.below(40)))) {
        ++gave_up;
        continue;
      }
      const int seen = counter;
      if (random.one_in(16)) this_task::yield();
      counter = seen + 1;
      guard.unlock();
    }
  });
  EXPECT_EQ(counter + gave_up, 7 * rounds);
  EXPECT_TRUE(guard.try_lock());
  guard.unlock();
}

TEST_P(MutexTest, LockedByAThreadAndWaitedForByATask) {
  mutex guard;
  guard.lock();
  std::atomic<bool> got{false};
  task waiting = runtime_->spawn_on(0, [&] {
    const std::lock_guard<mutex> held(guard);
    got = true;
  });
  std::this_thread::sleep_for(2ms);
  EXPECT_FALSE(got);
  guard.unlock();
  waiting.join();
  EXPECT_TRUE(got);
}

TEST_P(MutexTest, MayBeDestroyedByTheLastHolder) {
  for (int i = 0; i < 200 / share; ++i) {
    auto guard = std::make_unique<mutex>();
    guard->lock();
    task last = runtime_->spawn_on(0, [&] {
      guard->lock();
      guard->unlock();
      guard.reset();
    });
    if (i % 2 == 0) this_task::yield();
    guard->unlock();
    last.join();
  }
}

TEST_P(ConditionTest, NotifyOneWakesTheOldestWaiter) {
  const auto notify = [this] {
    mutex guard;
    condition changed;
    std::vector<int> woken;
    std::vector<task> waiting;
    for (int i = 0; i < 5; ++i) {
      waiting.push_back(runtime_->spawn_on(0, [&, i] {
        std::unique_lock<mutex> held(guard);
        changed.wait(held);
        EXPECT_TRUE(held.owns_lock());
        woken.push_back(i);
      }));
    }
    this_task::yield();
    for (int i = 0; i < 5; ++i) {
      changed.notify_one();
      while (woken.size() < static_cast<std::size_t>(i + 1)) this_task::yield();
      this_task::yield();
      EXPECT_EQ(woken.size(), static_cast<std::size_t>(i + 1)) << "one notification, one waiter";
      EXPECT_EQ(woken.back(), i);
    }
    for (task& each : waiting) each.join();
    changed.notify_one();  // to nobody: nothing is remembered
    std::unique_lock<mutex> held(guard);
    EXPECT_FALSE(changed.wait_until(held, now() + 1ms));
  };
  on_worker_0(notify);
}

TEST_P(ConditionTest, NotifyAllWakesTasksAndThreads) {
  mutex guard;
  condition changed;
  bool ready = false;  // guarded by `guard`
  std::atomic<int> waiting{0};
  std::thread notifier([&] {
    EXPECT_TRUE(tests::eventually([&] { return waiting == 12; }));
    const std::lock_guard<mutex> held(guard);
    ready = true;
    changed.notify_all();
  });
  run_on_all(*runtime_, 8, 4, [&](int) {
    std::unique_lock<mutex> held(guard);
    ++waiting;
    changed.wait(held, [&] { return ready; });
    EXPECT_TRUE(ready);
  });
  notifier.join();
}

TEST_P(ConditionTest, WaitUntilTimesOutAndHoldsTheMutexAgain) {
  const auto times_out = [] {
    mutex guard;
    condition changed;
    std::unique_lock<mutex> held(guard);
    const time_point deadline = now() + 3ms;
    EXPECT_FALSE(changed.wait_until(held, deadline));
    EXPECT_GE(now(), deadline);
    EXPECT_TRUE(held.owns_lock());
    EXPECT_FALSE(guard.try_lock());
    EXPECT_FALSE(changed.wait_until(held, now() - 1h)) << "a deadline in the past";
    EXPECT_TRUE(changed.wait_until(held, now() + 1ms, [] { return true; }));
    EXPECT_FALSE(changed.wait_until(held, now() + 1ms, [] { return false; }));
  };
  times_out();
  on_worker_0(times_out);
}

TEST_P(ConditionTest, TimedOutWaiterLeavesTheOthersInTheirOrder) {
  on_worker_0([this] {
    mutex guard;
    condition changed;
    std::vector<int> woken;
    std::vector<task> waiting;
    for (int i = 0; i < 5; ++i) {
      waiting.push_back(runtime_->spawn_on(0, [&, i] {
        std::unique_lock<mutex> held(guard);
        // First, middle and last give up.
        if (i % 2 == 0) {
          EXPECT_FALSE(changed.wait_until(held, now() + 1ms));
        } else {
          changed.wait(held);
          woken.push_back(i);
        }
      }));
    }
    this_task::sleep_for(5ms);
    for (std::size_t i = 0; i < 5; i += 2) waiting[i].join();
    changed.notify_one();
    waiting[1].join();
    EXPECT_EQ(woken, std::vector<int>{1});
    changed.notify_one();
    waiting[3].join();
  });
}

// No notification is lost between the unlock and the park: a queue between producers and consumers.
TEST_P(ConditionTest, QueueLosesNothing) {
  mutex guard;
  condition not_empty;
  condition not_full;
  std::deque<int> queue;  // guarded by `guard`
  constexpr int each_sends = 2000 / share;
  std::atomic<long> received{0};
  run_on_all(*runtime_, 6, 4, [&](int number) {
    const bool sends = number % 2 == 0;
    for (int i = 1; i <= each_sends; ++i) {
      std::unique_lock<mutex> held(guard);
      if (sends) {
        not_full.wait(held, [&] { return queue.size() < 3; });
        queue.push_back(i);
        not_empty.notify_one();
      } else {
        not_empty.wait(held, [&] { return !queue.empty(); });
        received += queue.front();
        queue.pop_front();
        not_full.notify_one();
      }
    }
  });
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(received, 5L * each_sends * (each_sends + 1) / 2);
}

// Deadlines that pass while a notification comes: each wait ends once, told or timed out, and a told waiter has taken a
// notification that nobody else got.
TEST_P(ConditionTest, TimeoutsRacingNotificationsAccountForEach) {
  mutex guard;
  condition changed;
  int tokens = 0;  // guarded by `guard`: notifications that found a waiter
  int told = 0;    // guarded by `guard`
  std::atomic<int> left{0};
  constexpr int rounds = 600 / share;
  constexpr int waiters = 6;
  std::atomic<int> waiting{waiters};
  std::thread notifier([&] {
    tests::model_random random(99);
    while (waiting > 0) {
      {
        const std::lock_guard<mutex> held(guard);
        changed.notify_one();
        ++tokens;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(60)));
    }
  });
  run_on_all(*runtime_, waiters - 2, 2, [&](int number) {
    tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
    for (int i = 0; i < rounds; ++i) {
      std::unique_lock<mutex> held(guard);
      if (changed.wait_until(held, now() + std::chrono::microseconds(random.below(120)))) {
        ++told;
      } else {
        ++left;
      }
    }
    --waiting;
  });
  notifier.join();
  EXPECT_LE(told, tokens);
  EXPECT_EQ(told + left, waiters * rounds);
}

class SyncDeathTest : public testing::Test {
 protected:
  SyncDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(SyncDeathTest, MutexDestroyedWhileLockedDies) {
  const auto destroy_locked = [] {
    mutex guard;
    guard.lock();
  };
  EXPECT_DEATH(destroy_locked(), "a mutex is destroyed while it is locked");
}

TEST_F(SyncDeathTest, UnlockOfAnUnlockedMutexDies) {
  mutex guard;
  EXPECT_DEATH(guard.unlock(), "unlock of a mutex that is not locked");
}

TEST_F(SyncDeathTest, WaitWithAnUnlockedMutexDies) {
  mutex guard;
  condition changed;
  std::unique_lock<mutex> not_held(guard, std::defer_lock);
  EXPECT_DEATH(changed.wait(not_held), "a wait for a condition with a mutex that is not locked");
}

TEST_F(SyncDeathTest, ConditionDestroyedWhileSomebodyWaitsDies) {
  const auto destroy_waited_for = [] {
    mutex guard;
    auto changed = std::make_unique<condition>();
    std::atomic<bool> locked{false};
    std::thread waiting([&] {
      std::unique_lock<mutex> held(guard);
      locked = true;
      changed->wait(held);
    });
    while (!locked) std::this_thread::yield();
    guard.lock();  // free only once it waits
    changed.reset();
  };
  EXPECT_DEATH(destroy_waited_for(), "a condition is destroyed while somebody waits");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/sync.h>

#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::run_on_all;
using tests::share;

time_point now() { return std::chrono::steady_clock::now(); }

class SharedMutexTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, SharedMutexTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(SharedMutexTest, WritersAreAloneAndReadersSeeNoHalfWrite) {
  shared_mutex guard;
  int left = 0;  // these two guarded by `guard`, and always equal when it is free
  int right = 0;
  std::atomic<int> writes{0};
  constexpr int rounds = 1000 / share;
  run_on_all(*runtime_, 6, 3, [&](int number) {
    tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
    for (int i = 0; i < rounds; ++i) {
      if (random.one_in(4)) {
        const std::lock_guard<shared_mutex> held(guard);
        ++left;
        if (random.one_in(8)) this_task::yield();
        ++right;
        ++writes;
      } else {
        const std::shared_lock<shared_mutex> held(guard);
        const int seen = left;
        if (random.one_in(8)) this_task::yield();
        EXPECT_EQ(seen, right);
        EXPECT_EQ(seen, left);
      }
    }
  });
  EXPECT_EQ(left, writes);
}

TEST_P(SharedMutexTest, TryLocksTakeOnlyWhatIsFree) {
  shared_mutex guard;
  EXPECT_TRUE(guard.try_lock());
  EXPECT_FALSE(guard.try_lock());
  EXPECT_FALSE(guard.try_lock_shared());
  guard.unlock();
  EXPECT_TRUE(guard.try_lock_shared());
  EXPECT_TRUE(guard.try_lock_shared());
  EXPECT_FALSE(guard.try_lock());
  guard.unlock_shared();
  EXPECT_FALSE(guard.try_lock());
  guard.unlock_shared();
  EXPECT_TRUE(guard.try_lock());
  guard.unlock();
}

// On one worker, in the order of their start: two readers, a writer, two readers, a writer.
TEST_P(SharedMutexTest, IsFairAndReadersAtTheHeadEnterTogether) {
  shared_mutex guard;
  std::vector<int> entered;  // by tasks of one worker
  int readers = 0;
  int readers_most = 0;
  on_worker_0([&] {
    guard.lock();
    std::vector<task> waiting;
    for (int i = 0; i < 6; ++i) {
      waiting.push_back(runtime_->spawn_on(0, [&, i] {
        if (i % 3 == 2) {
          const std::lock_guard<shared_mutex> held(guard);
          EXPECT_EQ(readers, 0);
          entered.push_back(i);
        } else {
          const std::shared_lock<shared_mutex> held(guard);
          entered.push_back(i);
          if (++readers > readers_most) readers_most = readers;
          this_task::yield();
          --readers;
        }
      }));
    }
    for (int i = 0; i < 3; ++i) this_task::yield();
    EXPECT_TRUE(entered.empty());
    guard.unlock();
    EXPECT_FALSE(guard.try_lock_shared()) << "a writer waits behind the readers that are in";
    for (task& each : waiting) each.join();
  });
  EXPECT_EQ(entered, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(readers_most, 2);
}

TEST_P(SharedMutexTest, WriterThatGivesUpLetsTheReadersBehindItEnter) {
  const auto give_up = [this] {
    shared_mutex guard;
    guard.lock_shared();
    task writer = runtime_->spawn_on(0, [&] { EXPECT_FALSE(guard.try_lock_until(now() + 5ms)); });
    for (int i = 0; guard.try_lock_shared(); ++i) {  // until the writer waits
      guard.unlock_shared();
      this_task::yield();
    }
    const std::shared_lock<shared_mutex> behind_it(guard, now() + 1h);
    EXPECT_TRUE(behind_it.owns_lock());
    guard.unlock_shared();
    writer.join();
  };
  on_worker_0(give_up);
}

TEST_P(SharedMutexTest, TimedAttemptsGiveUpAtTheirDeadline) {
  shared_mutex guard;
  guard.lock();
  const auto try_it = [&] {
    const time_point deadline = now() + 2ms;
    EXPECT_FALSE(guard.try_lock_until(deadline));
    EXPECT_FALSE(guard.try_lock_shared_until(deadline));
    EXPECT_GE(now(), deadline);
    EXPECT_FALSE(guard.try_lock_shared_until(now() + 1ms));
    EXPECT_FALSE(guard.try_lock_shared_until(now() - 1h)) << "a deadline in the past";
  };
  try_it();
  on_worker_0(try_it);
  guard.unlock();
  EXPECT_TRUE(guard.try_lock_shared_until(now() - 1h)) << "it is free";
  guard.unlock_shared();
}

TEST_P(SharedMutexTest, DeadlinesRacingUnlocksLoseNothing) {
  shared_mutex guard;
  int counter = 0;  // guarded by `guard`
  std::atomic<int> expected{0};
  constexpr int rounds = 1000 / share;
  run_on_all(*runtime_, 4, 3, [&](int number) {
    tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
    for (int i = 0; i < rounds; ++i) {
      const time_point deadline = now() + std::chrono::microseconds(random.below(60));
      if (random.one_in(2)) {
        if (!guard.try_lock_until(deadline)) continue;
        const int seen = counter;
        if (random.one_in(8)) this_task::yield();
        counter = seen + 1;
        ++expected;
        guard.unlock();
      } else {
        if (!guard.try_lock_shared_until(deadline)) continue;
        const int seen = counter;
        if (random.one_in(8)) this_task::yield();
        EXPECT_EQ(seen, counter);
        guard.unlock_shared();
      }
    }
  });
  EXPECT_TRUE(guard.try_lock());
  EXPECT_EQ(counter, expected);
  guard.unlock();
}

class SharedMutexDeathTest : public testing::Test {
 protected:
  SharedMutexDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(SharedMutexDeathTest, DestroyedWhileItIsLockedDies) {
  const auto destroy_read = [] {
    shared_mutex guard;
    guard.lock_shared();
  };
  const auto destroy_written = [] {
    shared_mutex guard;
    guard.lock();
  };
  EXPECT_DEATH(destroy_read(), "a shared_mutex is destroyed while it is locked");
  EXPECT_DEATH(destroy_written(), "a shared_mutex is destroyed while it is locked");
}

TEST_F(SharedMutexDeathTest, UnlockOfTheWrongKindDies) {
  shared_mutex guard;
  EXPECT_DEATH(guard.unlock(), "unlock of a shared_mutex that no writer holds");
  EXPECT_DEATH(guard.unlock_shared(), "unlock_shared of a shared_mutex that no reader holds");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/semaphore.h>
#include <larder/task_group.h>

#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

time_point in_an_hour() { return std::chrono::steady_clock::now() + 1h; }

class TaskGroupTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, TaskGroupTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(TaskGroupTest, WaitsForAllOfItsTasksAndServesAgain) {
  task_group group(*runtime_);
  group.wait();  // for nobody
  for (int round = 0; round < 3; ++round) {
    std::atomic<int> ran{0};
    for (int i = 0; i < 50; ++i) group.spawn([&] { ++ran; });
    group.wait();
    EXPECT_EQ(ran, 50);
    EXPECT_EQ(group.size(), 0U);
  }
}

TEST_P(TaskGroupTest, ItsTasksMayAddOthers) {
  task_group group(*runtime_);
  std::atomic<int> ran{0};
  for (int i = 0; i < 4; ++i) {
    group.spawn([&] {
      for (int j = 0; j < 4; ++j) {
        group.spawn([&] {
          this_task::yield();
          ++ran;
        });
      }
    });
  }
  runtime_->run([&] { group.wait(); });
  EXPECT_EQ(ran, 16);
}

TEST_P(TaskGroupTest, TasksAreWhereTheyWerePlaced) {
  task_group group(*runtime_);
  std::atomic<unsigned> where{~0U};
  group.spawn_on(runtime_->workers() - 1, [&] { where = runtime::current_worker(); });
  group.wait();
  EXPECT_EQ(where, runtime_->workers() - 1);
}

TEST_P(TaskGroupTest, TheFirstThatThrowsCancelsTheOthersAndComesOutOfWait) {
  task_group group(*runtime_);
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 5; ++i) {
    group.spawn([&] {
      try {
        this_task::sleep_until(in_an_hour());
      } catch (const task::cancelled&) {
        ++cancelled;
        throw;
      }
    });
  }
  group.spawn([] { throw std::runtime_error("first"); });
  try {
    group.wait();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const std::runtime_error& thrown) {
    EXPECT_STREQ(thrown.what(), "first");
  }
  EXPECT_EQ(cancelled, 5);
  group.spawn([] { this_task::yield(); });
  group.wait();  // as new: neither cancelled, nor does it throw again
}

TEST_P(TaskGroupTest, WhatLaterOnesThrowIsDropped) {
  task_group group(*runtime_);
  const auto kept = std::make_shared<int>(1);
  for (int i = 0; i < 10; ++i) {
    group.spawn([kept] { throw kept; });
  }
  EXPECT_THROW(group.wait(), std::shared_ptr<int>);
  // The tasks' own shares go with them; the last one's end may still be under way where it was told.
  runtime_.reset();
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_P(TaskGroupTest, CancelReachesThoseThatAreThereAndThoseThatCome) {
  task_group group(*runtime_);
  std::atomic<int> went_on{0};
  const auto wait_long = [&] {
    this_task::sleep_until(in_an_hour());
    ++went_on;
  };
  for (int i = 0; i < 5; ++i) group.spawn(wait_long);
  EXPECT_EQ(group.size(), 5U);
  group.cancel();
  group.spawn(wait_long);
  group.wait();  // who was cancelled has thrown nothing
  EXPECT_EQ(went_on, 0);
  std::atomic<bool> ran{false};
  group.spawn([&] {
    this_task::yield();
    ran = true;
  });
  group.wait();
  EXPECT_TRUE(ran);
}

TEST_P(TaskGroupTest, DestructionCancelsAndWaits) {
  std::atomic<int> ended{0};
  {
    task_group group(*runtime_);
    for (int i = 0; i < 5; ++i) {
      group.spawn([&] {
        const struct counter {
          std::atomic<int>& of;
          ~counter() { ++of; }
        } counted{ended};
        this_task::sleep_until(in_an_hour());
      });
    }
    group.spawn([] { throw std::runtime_error("nobody hears"); });
  }
  EXPECT_EQ(ended, 5);
}

TEST_P(TaskGroupTest, CancellingWhoWaitsCancelsTheGroup) {
  semaphore started(0);
  std::atomic<int> cancelled{0};
  task waiting = runtime_->spawn([&] {
    task_group group(*runtime_);
    for (int i = 0; i < 3; ++i) {
      group.spawn([&] {
        started.release();
        try {
          this_task::sleep_until(in_an_hour());
        } catch (const task::cancelled&) {
          ++cancelled;
          throw std::runtime_error("dropped for the cancellation");
        }
      });
    }
    group.wait();
  });
  started.acquire(3);
  waiting.cancel();
  EXPECT_FALSE(waiting.join());
  EXPECT_EQ(cancelled, 3);
}

// A tree of groups, cut off at the root.
TEST_P(TaskGroupTest, GroupsNest) {
  std::atomic<int> leaves{0};
  semaphore started(0);
  task_group root(*runtime_);
  for (int i = 0; i < 3; ++i) {
    root.spawn([&] {
      task_group branch(*runtime_);
      for (int j = 0; j < 3; ++j) {
        branch.spawn([&] {
          const struct counter {
            std::atomic<int>& of;
            ~counter() { ++of; }
          } counted{leaves};
          started.release();
          this_task::sleep_until(in_an_hour());
        });
      }
      branch.wait();
    });
  }
  started.acquire(9);
  root.cancel();
  root.wait();
  EXPECT_EQ(leaves, 9);
}

// It may go as soon as a wait has returned: under the address sanitizer a touch that comes later is seen.
TEST_P(TaskGroupTest, GroupsComeAndGoWhileTheirLastTaskEnds) {
  for (int i = 0; i < 2000 / tests::share; ++i) {
    auto group = std::make_unique<task_group>(*runtime_);
    group->spawn([] {});
    if (i % 2 == 0) group->spawn([] { this_task::yield(); });
    if (i % 3 == 0) group->wait();
    group.reset();
  }
}

class TaskGroupDeathTest : public testing::Test {
 protected:
  TaskGroupDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(TaskGroupDeathTest, ATaskThatWaitsForItsOwnGroupDies) {
  const auto wait_inside = [] {
    auto one = *runtime::create("dying", {.workers = 1});
    task_group group(*one);
    group.spawn([&] { group.wait(); });
    group.wait();
  };
  EXPECT_DEATH(wait_inside(), "a task waits for the end of the group that it is in");
}

}  // namespace
}  // namespace larder

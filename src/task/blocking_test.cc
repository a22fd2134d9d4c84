// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/blocking.h>
#include <larder/runtime.h>
#include <larder/semaphore.h>

#include "os/fault.h"
#include "task/helper_pool.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

class BlockingTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, BlockingTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(BlockingTest, GivesWhatTheCallReturnsFromAnotherThread) {
  runtime_->run([this] {
    EXPECT_EQ(blocking([] { return std::string(100, 'x'); }), std::string(100, 'x'));
    EXPECT_EQ(*blocking([] { return std::make_unique<int>(7); }), 7);
    int number = 1;
    int& same = blocking([&]() -> int& { return number; });
    EXPECT_EQ(&same, &number);
    bool called = false;
    bool inside = true;
    blocking([&] {
      called = true;
      inside = this_task::inside();
    });
    EXPECT_TRUE(called);
    EXPECT_FALSE(inside);
    EXPECT_EQ(runtime::current(), runtime_.get());
  });
}

TEST_P(BlockingTest, ThrowsWhatTheCallThrows) {
  runtime_->run([] {
    EXPECT_THROW(blocking([] { throw std::runtime_error("no"); }), std::runtime_error);
    EXPECT_THROW((void)blocking([]() -> int { throw std::runtime_error("no"); }), std::runtime_error);
  });
}

TEST_P(BlockingTest, AThreadMakesTheCallItself) {
  const auto here = std::this_thread::get_id();
  EXPECT_EQ(blocking([] { return std::this_thread::get_id(); }), here);
}

TEST_P(BlockingTest, TheWorkerGoesOnMeanwhile) {
  on_worker_0([this] {
    std::atomic<bool> other_ran{false};
    task other = runtime_->spawn_on(0, [&] { other_ran = true; });
    blocking([&] {
      while (!other_ran) std::this_thread::yield();
    });
    other.join();
  });
}

TEST_P(BlockingTest, ACallIsNotCutShortAndTheRequestIsKept) {
  semaphore began(0);
  std::atomic<bool> may_return{false};
  std::atomic<bool> returned{false};
  task blocked = runtime_->spawn([&] {
    blocking([&] {
      began.release();
      while (!may_return) std::this_thread::yield();
    });
    returned = true;
    this_task::yield();
    ADD_FAILURE() << "the request is lost";
  });
  began.acquire();
  blocked.cancel();
  std::this_thread::sleep_for(1ms);
  EXPECT_FALSE(blocked.done());
  may_return = true;
  EXPECT_FALSE(blocked.join());
  EXPECT_TRUE(returned);
}

TEST_P(BlockingTest, NoMoreThreadsThanAllowedMakeManyCalls) {
  start({.blocking_threads_max = 3});
  std::atomic<int> at_once{0};
  std::atomic<int> most{0};
  std::atomic<int> made{0};
  constexpr int calls = 500 / tests::share;
  std::vector<task> tasks;
  for (int i = 0; i < calls; ++i) {
    tasks.push_back(runtime_->spawn([&] {
      blocking([&] {
        const int now = ++at_once;
        int seen = most;
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        std::this_thread::yield();
        --at_once;
        ++made;
      });
    }));
  }
  for (task& each : tasks) each.join();
  EXPECT_EQ(made, calls);
  EXPECT_LE(most, 3);
}

TEST_P(BlockingTest, WithoutAThreadItFailsAndCallsNothing) {
  runtime_->run([] {
    os::fault::arm(os::call::thread_create, 1, EAGAIN);
    bool called = false;
    try {
      blocking([&] { called = true; });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code(), error_from(EAGAIN));
    }
    EXPECT_TRUE(os::fault::fired());
    os::fault::disarm();
    EXPECT_FALSE(called);
    blocking([&] { called = true; });
    EXPECT_TRUE(called);
  });
}

TEST(HelperPoolTest, HelpersEndOnceTheyHaveBeenIdleAndComeAgain) {
  task_layer::helper_pool pool("idle", 8, 1ms);
  for (int round = 0; round < 5; ++round) {
    int calls = 0;
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(pool.call([](void* count) { ++*static_cast<int*>(count); }, &calls));
    }
    EXPECT_EQ(calls, 3);
    while (pool.helpers() != 0) std::this_thread::sleep_for(100us);
  }
}

TEST(HelperPoolTest, WithoutMemoryForAThreadACallIsRefusedAndTheNextIsMade) {
  class short_of_memory final : public task_layer::helper_pool {
   public:
    short_of_memory() : helper_pool("short", 1) {}
    ~short_of_memory() override { end(); }
    bool is_short = true;

   private:
    result<void> start(helper& one) override {
      if (is_short) throw std::bad_alloc();
      return helper_pool::start(one);
    }
  } pool;
  int calls = 0;
  const auto call = [&] { return pool.call([](void* count) { ++*static_cast<int*>(count); }, &calls); };
  EXPECT_EQ(call().error(), error_from(ENOMEM));
  EXPECT_EQ(calls, 0);
  pool.is_short = false;
  EXPECT_TRUE(call());
  EXPECT_EQ(calls, 1);
}

TEST(HelperPoolTest, CallsThatFollowEachOtherUseOneHelper) {
  task_layer::helper_pool pool("one", 8, 1h);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(pool.call([](void*) {}, nullptr));
    while (pool.idle_helpers() != 1) std::this_thread::yield();
  }
  EXPECT_EQ(pool.helpers(), 1U);
}

TEST(HelperPoolTest, ManyThreadsMakeCallsWhileHelpersComeAndGo) {
  task_layer::helper_pool pool("busy", 2, 1us);
  std::atomic<int> made{0};
  constexpr int rounds = 500 / tests::share;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < rounds; ++round) {
        EXPECT_TRUE(pool.call([](void* count) { ++*static_cast<std::atomic<int>*>(count); }, &made));
      }
    });
  }
  for (std::thread& each : callers) each.join();
  EXPECT_EQ(made, 4 * rounds);
}

class BlockingDeathTest : public testing::Test {
 protected:
  BlockingDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(BlockingDeathTest, ANumberOfThreadsOutOfRangeIsNamed) {
  EXPECT_DEATH((void)runtime::create("none", {.blocking_threads_max = 0}),
               "runtime \"none\": blocking_threads_max is 0: expected 1 to 4096");
  EXPECT_DEATH((void)runtime::create("many", {.blocking_threads_max = 4097}), "is 4097: expected 1 to 4096");
}

}  // namespace
}  // namespace larder

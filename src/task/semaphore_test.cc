// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/semaphore.h>

#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::run_on_all;
using tests::share;

time_point now() { return std::chrono::steady_clock::now(); }

class SemaphoreTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, SemaphoreTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(SemaphoreTest, NeverMoreUnitsAreOutThanThereAre) {
  semaphore units(7);
  std::atomic<std::int64_t> out{0};
  run_on_all(*runtime_, 6, 3, [&](int number) {
    tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
    for (int i = 0; i < 1000 / share; ++i) {
      const std::uint64_t wanted = random.below(6);
      if (random.one_in(3)) {
        if (!units.try_acquire_until(now() + std::chrono::microseconds(random.below(50)), wanted)) continue;
      } else {
        units.acquire(wanted);
      }
      EXPECT_LE(out += static_cast<std::int64_t>(wanted), 7);
      if (random.one_in(8)) this_task::yield();
      out -= static_cast<std::int64_t>(wanted);
      units.release(wanted);
    }
  });
  EXPECT_EQ(units.units_free(), 7U);
}

TEST_P(SemaphoreTest, NobodyOvertakesALargeRequest) {
  on_worker_0([this] {
    semaphore units(2);
    bool large_done = false;
    bool small_done = false;
    task large = runtime_->spawn_on(0, [&] {
      units.acquire(3);
      large_done = true;
    });
    this_task::yield();
    task small = runtime_->spawn_on(0, [&] {
      units.acquire();
      small_done = true;
    });
    this_task::yield();
    EXPECT_FALSE(large_done);
    EXPECT_FALSE(small_done) << "it stands behind the large one, though there is a unit for it";
    EXPECT_FALSE(units.try_acquire());
    units.release();
    large.join();
    EXPECT_FALSE(small_done);
    units.release();
    small.join();
    EXPECT_EQ(units.units_free(), 0U);
  });
}

TEST_P(SemaphoreTest, RequestThatGivesUpLetsTheOneBehindItGoOn) {
  on_worker_0([this] {
    semaphore units(2);
    task large = runtime_->spawn_on(0, [&] { EXPECT_FALSE(units.try_acquire_until(now() + 3ms, 3)); });
    this_task::yield();
    EXPECT_TRUE(units.try_acquire_until(now() + 1h, 2));
    large.join();
  });
}

TEST_P(SemaphoreTest, DeadlinesAreKept) {
  semaphore units(1);
  const auto try_it = [&] {
    const time_point deadline = now() + 2ms;
    EXPECT_FALSE(units.try_acquire_until(deadline, 2));
    EXPECT_GE(now(), deadline);
    EXPECT_FALSE(units.try_acquire_until(now() - 1h, 2)) << "a deadline in the past";
    EXPECT_TRUE(units.try_acquire_until(now() - 1h, 1)) << "what is free is taken whatever the deadline";
    units.release();
  };
  try_it();
  on_worker_0(try_it);
}

TEST_P(SemaphoreTest, NothingIsTakenForNoUnits) {
  semaphore units;
  units.acquire(0);
  EXPECT_TRUE(units.try_acquire(0));
  units.release(0);
  EXPECT_EQ(units.units_free(), 0U);
}

// A model: requests in the order of their coming, each granted when all before it are and its units are there. Every
// waiter is a task of the worker that the test's task runs on, so after yields all that can happen has.
TEST_P(SemaphoreTest, DoesAsItsModelDoes) {
  struct request {
    std::uint64_t units;
    bool granted = false;        // by the semaphore
    bool model_granted = false;  // by the model
    task waiting;
  };
  on_worker_0([this] {
    tests::model_random random;
    semaphore tested(3);
    std::uint64_t free = 3;
    std::list<request> requests;  // all that wait, and what was granted and is out
    std::deque<request*> waiting;
    const auto serve = [&] {
      while (!waiting.empty() && waiting.front()->units <= free) {
        free -= waiting.front()->units;
        waiting.front()->model_granted = true;
        waiting.pop_front();
      }
    };
    for (int step = 0; step < 5000 / share; ++step) {
      const std::uint64_t units = random.between(1, 4);
      switch (random.below(4)) {
        case 0:  // a new request
          if (waiting.size() < 8) {
            request& made = requests.emplace_back(request{.units = units, .waiting = {}});
            waiting.push_back(&made);
            made.waiting = runtime_->spawn_on(0, [&tested, &made] {
              tested.acquire(made.units);
              made.granted = true;
            });
          }
          break;
        case 1: {  // an attempt
          const bool expected = waiting.empty() && units <= free;
          if (expected) free -= units;
          ASSERT_EQ(tested.try_acquire(units), expected);
          break;
        }
        case 2:  // a deadline that passes
          if (!waiting.empty() && random.one_in(8)) {
            EXPECT_FALSE(tested.try_acquire_until(now() + 20us, units));
          }
          break;
        default:  // units come
          if (free < 20) {
            tested.release(units);
            free += units;
          }
      }
      serve();
      this_task::yield();
      this_task::yield();
      ASSERT_EQ(tested.units_free(), free);
      for (auto each = requests.begin(); each != requests.end();) {
        ASSERT_EQ(each->granted, each->model_granted) << "at step " << step;
        if (each->granted) {
          each->waiting.join();
          each = requests.erase(each);
        } else {
          ++each;
        }
      }
    }
    tested.release(100);
    for (request& each : requests) each.waiting.join();
  });
}

class SemaphoreDeathTest : public testing::Test {
 protected:
  SemaphoreDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(SemaphoreDeathTest, CountThatOverflowsDies) {
  semaphore units(std::numeric_limits<std::uint64_t>::max() - 1);
  units.release();
  EXPECT_DEATH(units.release(), "a semaphore with 18446744073709551615 units free was given 1 more");
}

TEST_F(SemaphoreDeathTest, DestroyedWhileSomebodyWaitsDies) {
  const auto destroy_waited_for = [] {
    auto units = std::make_unique<semaphore>(1);
    std::thread waiting([&] { units->acquire(2); });
    while (units->try_acquire()) {  // until it waits
      units->release();
      std::this_thread::yield();
    }
    units.reset();
  };
  EXPECT_DEATH(destroy_waited_for(), "a semaphore is destroyed while somebody waits");
}

}  // namespace
}  // namespace larder

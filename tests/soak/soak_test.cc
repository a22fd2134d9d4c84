// SPDX-License-Identifier: Apache-2.0
//
// Coroutines that are created, resumed, moved, ended and cancelled by any of several threads, and tasks that spawn,
// join, throw and wait on several workers, at random, for as long as one likes: LARDER_SOAK_SECONDS, ten unless given.
// Once a second all of it comes to rest, threads and runtime included. Then nothing is alive, nothing is out, the
// budgets' laws hold, and the process has no more mappings than after the first time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "base/sanitizers.h"
#include "os/clock.h"
#include "tests/soak/coroutines.h"
#include "tests/soak/tasks.h"
#include "tests/support/model_random.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

constexpr auto round_length = 1s;
constexpr auto progress_period = 10s;
#if defined(LARDER_THREAD_SANITIZER) || defined(LARDER_ADDRESS_SANITIZER)
constexpr bool mappings_are_ours = false;  // it makes some for each of its records
#else
constexpr bool mappings_are_ours = true;
#endif
// Of threads' stacks and heaps, which the C library keeps.
constexpr std::size_t mappings_of_others = 64;

std::size_t mappings() {
  std::ifstream file("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  return lines;
}

// Also when the process dies of a check: what to replay it with.
void announce_seed(std::chrono::seconds duration) {
  if (std::getenv("LARDER_TEST_SEED") == nullptr) {
    setenv("LARDER_TEST_SEED", std::to_string(std::random_device{}()).c_str(), 1);
  }
  std::printf("soak: %lld s with LARDER_TEST_SEED=%s\n", static_cast<long long>(duration.count()),
              std::getenv("LARDER_TEST_SEED"));
}

class SoakTest : public testing::Test {
 protected:
  SoakTest() {
    const char* given = std::getenv("LARDER_SOAK_SECONDS");
    if (given != nullptr) duration_ = std::chrono::seconds(std::strtoll(given, nullptr, 10));
    announce_seed(duration_);
  }

  void run_round(std::uint64_t number) {
    tests::model_random random(number << 16);
    const time_point end = os::now() + round_length;
    const unsigned workers = static_cast<unsigned>(random.between(1, 4));
    const std::size_t places = random.between(16, 1000);
    tests::soaked_coroutines coroutines(places);
    {
      auto made = runtime::create("soak", {.workers = workers, .budget = &budget_});
      ASSERT_TRUE(made) << made.error().message();
      tests::soaked_tasks tasks(**made);
      std::vector<std::thread> threads;
      for (std::uint64_t each = random.between(2, 4); each > 0; --each) {
        threads.emplace_back([&coroutines, stream = (number << 16) + each, end] {
          tests::model_random own(stream);
          while (os::now() < end) coroutines.take_steps(own, 100);
        });
      }
      for (std::uint64_t each = random.between(1, 2); each > 0; --each) {
        threads.emplace_back([&tasks, stream = (number << 16) + 100 + each, end] {
          tests::model_random own(stream);
          while (os::now() < end) tasks.run_family(own);
        });
      }
      while (os::now() < end) {
        std::this_thread::sleep_for(50ms);
        mappings_peak_ = std::max(mappings_peak_, mappings());
      }
      for (std::thread& each : threads) each.join();
      made->reset();
      tasks_ += tasks.check_at_rest();
    }
    coroutines.end_all(random);
    coroutines_ += coroutines.check_at_rest();
    stacks_max_ = std::max(stacks_max_, places + workers * tests::soaked_tasks::alive_max);
  }

  void check_at_rest() {
    EXPECT_EQ(budget_.used(), bytes{0});
    budget_.audit();
    memory_budget::process().audit();
    for (const char* size : {"16K", "32K", "64K", "256K", "1M"}) {
      const std::string cache = std::string("object_cache/coroutines/") + size;
      EXPECT_EQ(tests::stat_value(cache, "objects_out").value_or(0), 0U) << cache;
      EXPECT_EQ(tests::stat_value(cache, "gets"), tests::stat_value(cache, "puts")) << cache;
    }
    memory_budget::process().reclaim(unlimited);
    if (!mappings_are_ours) return;
    const std::size_t now = mappings();
    if (mappings_at_first_ == 0) mappings_at_first_ = now;
    EXPECT_LE(now, mappings_at_first_ + mappings_of_others);
    // A stack and its guard are two mappings where the system cannot do better (KF-32).
    EXPECT_LE(mappings_peak_, mappings_at_first_ + mappings_of_others + 2 * stacks_max_);
  }

  void show_progress(std::uint64_t rounds, std::chrono::nanoseconds passed) const {
    std::printf("soak: %lld s, %llu rounds, %llu coroutines, %llu tasks, %zu mappings at most, %zu at rest\n",
                static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(passed).count()),
                static_cast<unsigned long long>(rounds), static_cast<unsigned long long>(coroutines_),
                static_cast<unsigned long long>(tasks_), mappings_peak_, mappings());
    std::fflush(stdout);
  }

  std::chrono::seconds duration_ = 10s;
  memory_budget budget_{"soak"};
  std::uint64_t coroutines_ = 0;
  std::uint64_t tasks_ = 0;
  std::size_t stacks_max_ = 0;
  std::size_t mappings_at_first_ = 0;
  std::size_t mappings_peak_ = 0;
};

TEST_F(SoakTest, NothingIsLeftAndNothingGrowsWhateverThreadsDoToCoroutinesAndTasks) {
  ASSERT_GT(duration_.count(), 0) << "LARDER_SOAK_SECONDS";
  const time_point began = os::now();
  time_point shown = began;
  std::uint64_t rounds = 0;
  while (os::now() - began < duration_ && !HasFailure()) {
    run_round(++rounds);
    check_at_rest();
    if (os::now() - shown < progress_period || os::now() - began >= duration_) continue;
    shown = os::now();
    show_progress(rounds, shown - began);
  }
  show_progress(rounds, os::now() - began);
  EXPECT_GT(coroutines_, 0U);
  EXPECT_GT(tasks_, 0U);
}

}  // namespace
}  // namespace larder

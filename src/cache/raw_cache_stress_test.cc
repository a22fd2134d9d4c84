// SPDX-License-Identifier: Apache-2.0
//
// Caches under what interrupts a thread at any instruction: signals every 50 microseconds, moves from CPU to CPU, the
// keeper, and threads that come and go. Each object has an owner word that whoever holds it sets and checks.
#include <sys/time.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/keeper.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "os/cpu.h"
#include "tests/support/one_cpu.h"
#include "tests/support/run_on_all.h"

namespace larder {
namespace {

// As many pointers as any CPU's array may hold.
constexpr std::size_t array_max = 2046;

base::atomic<std::uint64_t> signals_taken{0};

// SIGALRM to whatever thread runs, again and again, as long as this lives.
class alarms {
 public:
  alarms() {
    struct sigaction wanted {};
    wanted.sa_handler = [](int) { signals_taken.fetch_add(1, base::memory_order_relaxed); };
    wanted.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &wanted, &before_);
    set(50);
  }
  ~alarms() {
    set(0);
    sigaction(SIGALRM, &before_, nullptr);
  }
  alarms(const alarms&) = delete;
  alarms& operator=(const alarms&) = delete;

 private:
  static void set(suseconds_t period_us) {
    const itimerval wanted{{0, period_us}, {0, period_us}};
    ASSERT_EQ(setitimer(ITIMER_REAL, &wanted, nullptr), 0);
  }
  struct sigaction before_ {};
};

// What one thread does with the cache; its objects carry its number.
class worker {
 public:
  worker(raw_cache& cache, std::uint64_t number) : cache_(cache), number_(number), random_(number) {}
  ~worker() {
    while (!held_.empty()) cache_.put(let_go());
  }
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  void step() {
    const std::uint64_t what = random_() % 1000;
    if (what < 450) {
      hold(cache_.try_get());
    } else if (what < 900) {
      if (!held_.empty()) cache_.put(let_go());
    } else if (what < 947) {
      void* some[40];
      const std::size_t got = cache_.get_many(some, 1 + random_() % 40);
      for (std::size_t i = 0; i < got; ++i) hold(some[i]);
    } else if (what < 998) {
      std::vector<void*> some;
      while (!held_.empty() && some.size() < 40) some.push_back(let_go());
      cache_.put_many(some.data(), some.size());
    } else {
      cache_.trim(what == 998 ? unlimited : bytes{random_() % 50'000});
    }
  }

  // Runs for `rounds`, each of some hundred operations on another CPU.
  void run(int rounds, const std::vector<int>& cpus) {
    for (int round = 0; round < rounds && !testing::Test::HasFatalFailure(); ++round) {
      tests::stay_on(cpus[random_() % cpus.size()]);
      for (std::uint64_t left = 100 + random_() % 300; left > 0; --left) step();
    }
  }

 private:
  using owner_word = base::atomic<std::uint64_t>;

  void hold(void* object) {
    if (object == nullptr) return;
    ASSERT_EQ(static_cast<owner_word*>(object)->exchange(number_), 0U) << "with two users";
    held_.push_back(object);
  }
  void* let_go() {
    std::swap(held_[random_() % held_.size()], held_.back());
    void* object = held_.back();
    held_.pop_back();
    EXPECT_EQ(static_cast<owner_word*>(object)->exchange(0), number_) << "with two users";
    return object;
  }

  raw_cache& cache_;
  const std::uint64_t number_;  // from 1
  std::mt19937_64 random_;
  std::vector<void*> held_;
};

class RawCacheStressTest : public testing::Test {
 protected:
  ~RawCacheStressTest() override {
    (void)configure_keeper({});
    EXPECT_EQ(budget.used(), bytes{});
  }

  // An object begins as nobody's; the memory of a slab is zero at first, but not when it is built again.
  raw_cache::options options_for(std::size_t size) {
    raw_cache::options chosen{.size = size, .budget = &budget};
    chosen.construct = [](void* object, void*) -> result<void> {
      *static_cast<std::uint64_t*>(object) = 0;
      return {};
    };
    return chosen;
  }

  static void run_workers(raw_cache& cache, std::size_t threads_count, int rounds) {
    const std::vector<int> cpus = tests::allowed_cpus();
    std::vector<std::thread> threads;
    for (std::size_t number = 1; number <= threads_count; ++number) {
      threads.emplace_back([&, number] { worker(cache, number).run(rounds, cpus); });
    }
    for (std::thread& each : threads) each.join();
  }

  static void expect_all_back(const raw_cache& cache) {
    EXPECT_EQ(cache.stats().objects_out, 0U);
    EXPECT_EQ(cache.stats().gets, cache.stats().puts);
  }

  memory_budget budget{"test"};
};

// KF-13, KF-17
TEST_F(RawCacheStressTest, NoObjectHasTwoUsersUnderSignalsAndMoves) {
  (void)configure_keeper({.period = std::chrono::hours(1)});
  raw_cache cache("interrupted", options_for(64));
  const std::uint64_t before = signals_taken;
  {
    const alarms ringing;
    run_workers(cache, 4, 5000 / tests::share);
  }
  EXPECT_GT(signals_taken - before, 1000U) << "too quiet to prove anything";
  cache.audit();
  expect_all_back(cache);
}

// The keeper closes, empties, drops and opens the arrays a thousand times a second meanwhile (KF-11).
TEST_F(RawCacheStressTest, NoObjectHasTwoUsersBesideABusyKeeper) {
  ASSERT_TRUE(configure_keeper({.period = std::chrono::milliseconds(1)}));
  raw_cache cache("kept", options_for(200));
  {
    const alarms ringing;
    run_workers(cache, 4, 3000 / tests::share);
  }
  (void)configure_keeper({.period = std::chrono::hours(1)});
  cache.audit();
  expect_all_back(cache);
}

// KF-36: what a thread leaves behind is the CPU's. A thousand threads cache no more than one.
TEST_F(RawCacheStressTest, WhatIsCachedIsBoundedByCpusNotByThreads) {
  (void)configure_keeper({.period = std::chrono::hours(1)});
  raw_cache cache("crowded", options_for(64));
  const auto bound = array_max * static_cast<std::size_t>(os::possible_cpus());
  for (int generation = 0; generation < 16; ++generation) {
    // Some that get and put, and some that only ever put.
    std::vector<std::thread> threads;
    for (std::uint64_t number = 1; number <= 64; ++number) {
      if (number % 4 == 0) {
        std::vector<void*> objects(200);
        objects.resize(cache.get_many(objects.data(), objects.size()));
        ASSERT_EQ(objects.size(), 200U);
        threads.emplace_back([&cache, objects] {
          for (void* object : objects) cache.put(object);
        });
      } else {
        threads.emplace_back([&cache, number] {
          worker one(cache, number);
          for (int step = 0; step < 200; ++step) one.step();
        });
      }
    }
    for (std::thread& each : threads) each.join();
    ASSERT_LE(cache.stats().objects_cached, bound);
    ASSERT_EQ(cache.stats().objects_out, 0U);
  }
  cache.audit();
  expect_all_back(cache);
}

// KF-35: figures that are read while they change are never below zero, nor more than there is; at rest they agree.
TEST_F(RawCacheStressTest, FiguresAreWithinWhatThereIsWhileTheyChange) {
  ASSERT_TRUE(configure_keeper({.period = std::chrono::milliseconds(1)}));
  raw_cache cache("counted", options_for(64));
  base::atomic<bool> done{false};
  std::uint64_t samples = 0;
  std::thread sampler([&] {
    for (; !done || samples < 100; ++samples) {
      const raw_cache::statistics now = cache.stats();
      const std::uint64_t slabs = now.slabs_full + now.slabs_partial + now.slabs_empty;
      ASSERT_LE(now.objects_out + now.objects_cached + now.objects_in_depot, now.objects_built);
      ASSERT_LE(now.objects_built, slabs * now.objects_per_slab);
      ASSERT_LE(now.destroyed, now.constructed);
      ASSERT_GE(now.charged, now.slab_bytes * slabs);
    }
  });
  run_workers(cache, 3, 3000 / tests::share);
  done = true;
  sampler.join();
  (void)configure_keeper({.period = std::chrono::hours(1)});
  cache.audit();
  expect_all_back(cache);
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// KF-18: the child of a fork can use and destroy every cache, whatever the parent's other threads were doing. Each test
// forks in a child of its own, which reports by its exit status.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/handle_table.h>
#include <larder/keeper.h>
#include <larder/memory_budget.h>
#include <larder/raw_cache.h>
#include <larder/stats.h>

#include "base/atomic.h"
#include "base/sanitizers.h"
#include "tests/support/eventually.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

class RawCacheForkTest : public testing::Test {
 protected:
  void SetUp() override {
#ifdef LARDER_THREAD_SANITIZER
    GTEST_SKIP() << "the thread sanitizer does not support threads after a fork of a process with threads";
#endif
  }

  // Runs `body` in a forked child; true if it returned true.
  template <typename Body>
  static bool in_child(Body&& body) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(30);  // a child that waits for a lock of the parent's fails
      const bool good = body() && !testing::Test::HasFailure();
      ::_exit(good ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  static bool use(raw_cache& cache, std::size_t count) {
    std::vector<void*> objects(count);
    if (cache.get_many(objects.data(), count) != count) return false;
    for (void* object : objects) cache.put(object);
    cache.audit();
    return true;
  }

  memory_budget budget{"test"};
};

TEST_F(RawCacheForkTest, TheChildUsesAndDestroysWhileTheParentsThreadsRan) {
  auto cache = std::make_unique<raw_cache>("forked", raw_cache::options{.size = 64, .budget = &budget});
  handle_table<int> table("forked", {.limit = 1000, .budget = &budget});
  base::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<void*> held(200 + 100 * static_cast<std::size_t>(thread));
      int target = 0;
      while (!stop) {
        for (void*& object : held) object = *cache->get();
        if (thread == 0) cache->trim();
        const handle made = table.insert(&target);
        for (void* object : held) cache->put(object);
        table.erase(made);
        for_each_stat([](const stat&) {});
      }
    });
  }
  for (int fork = 0; fork < 50; ++fork) {
    EXPECT_TRUE(in_child([&] {
      const bool used = use(*cache, 1000);
      int target = 0;
      const handle made = table.insert(&target);
      const bool found = table.find(made) == &target && table.erase(made);
      cache.reset();  // though the parent's threads had objects out
      std::size_t figures = 0;
      for_each_stat([&](const stat&) { ++figures; });
      return used && found && figures > 0;
    })) << "fork "
        << fork;
  }
  stop = true;
  for (std::thread& each : threads) each.join();
  cache->audit();
}

// An object that the child itself had out stays its own; to lose more is an error there, too.
TEST_F(RawCacheForkTest, WhatTheForkingThreadHasOutIsTheChildsToPut) {
  raw_cache cache("held", {.size = 64, .limit = 2, .budget = &budget});
  void* mine = cache.try_get();
  EXPECT_TRUE(in_child([&] {
    cache.put(mine);
    return cache.try_get() != nullptr && cache.try_get() != nullptr && cache.try_get() == nullptr;
  }));
  cache.put(mine);
}

// KF-11 in the child: it has a keeper of its own, started by its first use.
TEST_F(RawCacheForkTest, TheChildsKeeperGivesBackWhatIsIdle) {
  ASSERT_TRUE(configure_keeper({.period = 10ms}));
  raw_cache cache("kept", {.size = 64, .budget = &budget});
  EXPECT_TRUE(use(cache, 5000));
  EXPECT_TRUE(in_child([&] {
    if (!use(cache, 10)) return false;
    return tests::eventually([&] { return cache.stats().objects_built == 0; });
  }));
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().objects_built == 0; }));
  ASSERT_TRUE(configure_keeper({}));
}

// The child of a parent whose getters waited has nobody waiting, and hands nothing to them.
TEST_F(RawCacheForkTest, WhoWaitsWaitsInTheParentOnly) {
  memory_budget small("small", {.limit = 64_KiB}, &budget);
  raw_cache cache("waited", {.size = 64, .limit = 1, .budget = &small});
  void* only = cache.try_get();
  const bytes rest = small.limit() - small.used();
  ASSERT_TRUE(small.try_charge(rest));
  std::thread getter([&] { cache.put(*cache.get()); });
  std::thread charger([&] {
    ASSERT_TRUE(small.charge(4_KiB));
    small.release(4_KiB);
  });
  EXPECT_TRUE(tests::eventually([&] { return cache.stats().waiting == 1 && small.has_waiters(); }));
  EXPECT_TRUE(in_child([&] {
    cache.put(only);
    if (cache.stats().waiting != 0 || small.has_waiters()) return false;
    small.release(rest);
    return small.try_charge(4_KiB) && cache.try_get() == only;
  }));
  small.release(rest);
  cache.put(only);
  getter.join();
  charger.join();
  cache.audit();
}

}  // namespace
}  // namespace larder

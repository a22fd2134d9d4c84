// SPDX-License-Identifier: Apache-2.0
//
// Tasks on a system where a guard costs mappings (no guard markers, as before Linux 6.13), and few are left.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/runtime.h>
#include <larder/semaphore.h>

#include "os/fault.h"
#include "os/guard.h"
#include "tests/support/eventually.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/runtime_over_workers.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

class RuntimeGuardTest : public tests::runtime_over_workers {
 protected:
  RuntimeGuardTest() {
    memory_budget::process().reclaim(unlimited);
    os::fault::arm(os::call::guard, 1, EINVAL, true);
    EXPECT_TRUE(set_stack_guard_share(1));
    most = os::guards().protections_max;
    EXPECT_LT(os::guards().protections, most);
  }
  ~RuntimeGuardTest() override {
    runtime_.reset();
    memory_budget::process().reclaim(unlimited);
    EXPECT_EQ(os::guards().protections, 0U) << "guards of stacks that are no more";
    EXPECT_TRUE(set_stack_guard_share(50));
    os::fault::disarm();
  }

  // Starts tasks that wait until they are let go, until one is refused.
  void spawn_all_there_are() {
    while (runtime_->try_spawn_detached([this] {
      held.acquire();
      ++ended;
    })) {
      ASSERT_LE(++spawned, most);
    }
  }
  void let_go(std::size_t count) {
    held.release(count);
    spawned -= count;
    ASSERT_TRUE(tests::eventually([this] { return runtime_->tasks() == spawned; }));
  }

  const tests::keeper_at_rest at_rest;
  std::size_t most = 0;
  std::size_t spawned = 0;
  std::atomic<std::size_t> ended{0};
  semaphore held{0};
};
INSTANTIATE_TEST_SUITE_P(Over, RuntimeGuardTest, testing::Values(1, 2), tests::name_of_workers);

// KF-31, KF-32: an error to whoever spawns, at once though tasks are there that will end; what there is goes on.
TEST_P(RuntimeGuardTest, SpawnBeyondTheShareIsRefusedAndTheOthersGoOn) {
  start({.stack_size = 16_KiB});
  spawn_all_there_are();
  EXPECT_EQ(spawned, most);
  EXPECT_EQ(os::guards().protections, most);
  EXPECT_THROW((void)runtime_->spawn([] {}), std::bad_alloc);
  EXPECT_THROW(runtime_->spawn_detached([] {}), std::bad_alloc);
  EXPECT_FALSE(runtime_->try_spawn_detached([] {}));
  EXPECT_GE(tests::stat_value("stack_guards", "refused").value_or(0), 3U);
  let_go(10);
  EXPECT_EQ(ended, 10U);
  bool ran = false;
  runtime_->run([&] { ran = true; });
  EXPECT_TRUE(ran);
  let_go(spawned);
}

// A task that is refused catches that like a thread.
TEST_P(RuntimeGuardTest, SpawnByATaskBeyondTheShareIsRefused) {
  start({.stack_size = 16_KiB});
  bool refused = false;
  runtime_->run([&] {
    spawn_all_there_are();
    try {
      runtime_->run([] {});
    } catch (const std::bad_alloc&) {
      refused = true;
    }
  });
  EXPECT_TRUE(refused);
  let_go(spawned);
}

// The idle stacks of coroutines go for a runtime's, those of a runtime for coroutines, and for another runtime's.
TEST_P(RuntimeGuardTest, IdleStacksOfOthersAreGivenUp) {
  const auto make_all_coroutines = [&] {
    std::vector<coroutine> live;
    try {
      for (;;) live.emplace_back([] {}, coroutine::options{.stack_size = 16_KiB});
    } catch (const std::bad_alloc&) {
      return live.size();
    }
  };
  EXPECT_EQ(make_all_coroutines(), most);
  EXPECT_EQ(os::guards().protections, most) << "idle, but held";
  start({.stack_size = 32_KiB, .stacks_reserved = 8});
  EXPECT_GE(tests::stat_value("object_cache/tested/stacks", "objects_built").value_or(0), 8U);
  spawn_all_there_are();
  EXPECT_EQ(spawned, most);
  let_go(spawned);
  EXPECT_GE(make_all_coroutines(), most - 8 - 2) << "what is reserved, and the rest of its slabs, stays";
  auto other = runtime::create("other", {.workers = 1, .stack_size = 64_KiB, .stacks_reserved = 20});
  ASSERT_TRUE(other);
  bool ran = false;
  (*other)->run([&] { ran = true; });
  EXPECT_TRUE(ran);
}

// Runtimes come and go while a thread goes through their caches in search of guards.
TEST_P(RuntimeGuardTest, RuntimesGoWhileOthersAskThem) {
  start({.stack_size = 16_KiB});
  spawn_all_there_are();
  std::atomic<bool> stop{false};
  std::thread asker([&] {
    while (!stop) EXPECT_FALSE(runtime_->try_spawn_detached([] {}));
  });
  for (int round = 0; round < 20; ++round) {
    auto other = runtime::create("other", {.workers = 1});
    ASSERT_TRUE(other);
    EXPECT_THROW((*other)->run([] {}), std::bad_alloc);
  }
  stop = true;
  asker.join();
  let_go(spawned);
}

}  // namespace
}  // namespace larder

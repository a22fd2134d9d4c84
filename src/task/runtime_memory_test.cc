// SPDX-License-Identifier: Apache-2.0
//
// What a runtime does within a limit on tasks, memory, threads and mappings.
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>
#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/sanitizers.h"
#include "cache/keeper.h"
#include "os/cpu.h"
#include "os/cpu_sequence.h"
#include "os/fault.h"
#include "os/memory.h"
#include "tests/support/eventually.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/one_cpu.h"
#include "tests/support/runtime_over_workers.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

// Tasks wait here until they are let go.
class gate {
 public:
  void wait() {
    std::unique_lock<mutex> held(guard_);
    opened_.wait(held, [this] { return open_; });
  }
  void open() {
    const std::lock_guard<mutex> held(guard_);
    open_ = true;
    opened_.notify_all();
  }

 private:
  mutex guard_;
  condition opened_;
  bool open_ = false;  // guarded by guard_
};

class RuntimeMemoryTest : public tests::runtime_over_workers {
 protected:
  std::uint64_t stack_figure(std::string_view name) {
    return tests::stat_value("object_cache/tested/stacks", name).value_or(0);
  }
  // Opens the gate and waits until no task can be inside it.
  void let_all_go(gate& held) {
    held.open();
    ASSERT_TRUE(tests::eventually([this] { return runtime_->tasks() == 0; }));
  }
};
INSTANTIATE_TEST_SUITE_P(Over, RuntimeMemoryTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(RuntimeMemoryTest, SpawnWaitsAtTheTaskLimitAndGoesOn) {
  start({.task_limit = 3});
  gate held;
  std::atomic<int> running{0};
  for (int i = 0; i < 3; ++i) {
    runtime_->spawn_detached([&] {
      ++running;
      held.wait();
    });
  }
  ASSERT_TRUE(tests::eventually([&] { return running == 3; }));
  EXPECT_FALSE(runtime_->try_spawn_detached([] { ADD_FAILURE() << "beyond the limit"; }));
  std::atomic<bool> fourth_ran{false};
  std::thread spawner([&] { runtime_->run([&] { fourth_ran = true; }); });
  ASSERT_TRUE(tests::eventually([&] { return stack_figure("waiting") == 1; }));
  EXPECT_FALSE(fourth_ran);
  EXPECT_EQ(runtime_->tasks(), 3U);
  let_all_go(held);
  spawner.join();
  EXPECT_TRUE(fourth_ran);
}

// A task that waits for a stack parks: the tasks that will give one back run on the same worker.
TEST_P(RuntimeMemoryTest, SpawnFromATaskAtTheLimitParksTheTaskOnly) {
  start({.task_limit = 2});
  std::atomic<int> ran{0};
  runtime_->run([&] {
    for (int i = 0; i < 50; ++i) {
      runtime_->spawn_detached([&] {
        this_task::yield();
        ++ran;
      });
    }
  });
  runtime_.reset();
  EXPECT_EQ(ran, 50);
}

TEST_P(RuntimeMemoryTest, TrySpawnNeverExceedsTheTaskLimit) {
  start({.task_limit = 5});
  gate held;
  int accepted = 0;
  for (int i = 0; i < 20; ++i) accepted += runtime_->try_spawn_detached([&] { held.wait(); }) ? 1 : 0;
  EXPECT_EQ(accepted, 5);
  let_all_go(held);
}

// Charges all of a budget that is left.
budget_charge charge_the_rest_of(memory_budget& budget) {
  const bytes rest = budget.limit() - budget.used();
  EXPECT_TRUE(budget.try_charge(rest));
  return {budget, rest};
}

TEST_P(RuntimeMemoryTest, SpawnWaitsForMemoryAndGoesOn) {
  gate held;
  std::atomic<bool> ran{false};
  runtime_->run([] {});  // the caches are set up
  budget_charge rest = charge_the_rest_of(budget_);
  int accepted = 0;
  while (runtime_->try_spawn_detached([&] { held.wait(); })) ++accepted;
  EXPECT_LT(accepted, 20) << "what the first slab held besides";
  std::thread spawner([&] { runtime_->run([&] { ran = true; }); });
  ASSERT_TRUE(tests::eventually([&] { return budget_.has_waiters(); }));
  EXPECT_FALSE(ran);
  rest.reset();
  spawner.join();
  EXPECT_TRUE(ran);
  let_all_go(held);
}

TEST_P(RuntimeMemoryTest, SpawnGoesOnWithAStackThatAnEndedTaskGaveBack) {
  gate held;
  runtime_->run([] {});
  const budget_charge rest = charge_the_rest_of(budget_);
  while (runtime_->try_spawn_detached([&] { held.wait(); })) {
  }
  std::atomic<bool> ran{false};
  std::thread spawner([&] { runtime_->run([&] { ran = true; }); });
  ASSERT_TRUE(tests::eventually([&] { return stack_figure("waiting") == 1; }));
  held.open();
  spawner.join();
  EXPECT_TRUE(ran);
  let_all_go(held);
}

TEST_P(RuntimeMemoryTest, SpawnThatCanNeverFitThrowsBadAlloc) {
  memory_budget tight("tight", {.limit = 1_MiB});
  {
    auto small = runtime::create("small", {.workers = GetParam(), .stack_size = 1_MiB, .budget = &tight});
    ASSERT_TRUE(small) << small.error().message();
    bool ran = false;
    EXPECT_THROW((void)(*small)->spawn([&] { ran = true; }), std::bad_alloc);
    EXPECT_THROW((*small)->spawn_detached([&] { ran = true; }), std::bad_alloc);
    EXPECT_FALSE((*small)->try_spawn_detached([&] { ran = true; }));
    EXPECT_EQ((*small)->tasks(), 0U);
    EXPECT_FALSE(ran);
  }
  EXPECT_EQ(tight.used(), bytes{0});
}

TEST_P(RuntimeMemoryTest, ReservedStacksAreThereFromTheStartAndBudgetFull) {
  start({.stacks_reserved = 12});
  EXPECT_EQ(stack_figure("constructed"), 12U);
  const budget_charge rest = charge_the_rest_of(budget_);
  gate held;
  int accepted = 0;
  while (accepted < 12 && runtime_->try_spawn_detached([&] { held.wait(); })) ++accepted;
  EXPECT_EQ(accepted, 12);
  let_all_go(held);
}

// The wait for memory parks the task: on one worker, another task must run to end it.
TEST_P(RuntimeMemoryTest, ChargeThatWaitsParksTheTaskAndNotItsWorker) {
  memory_budget small("small", {.limit = 1_MiB});
  ASSERT_TRUE(small.try_charge(1_MiB));
  std::vector<std::string> steps;
  runtime_->run([&] {
    task waiting = runtime_->spawn([&] {
      steps.emplace_back("asks");
      EXPECT_TRUE(small.charge(64_KiB));
      steps.emplace_back("has");
    });
    task releasing = runtime_->spawn([&] {
      while (!small.has_waiters()) this_task::yield();
      steps.emplace_back("releases");
      small.release(64_KiB);
    });
    waiting.join();
    releasing.join();
  });
  EXPECT_EQ(steps, (std::vector<std::string>{"asks", "releases", "has"}));
  small.release(1_MiB);
}

TEST_P(RuntimeMemoryTest, ChargeByATaskTimesOut) {
  memory_budget small("small", {.limit = 1_MiB});
  ASSERT_TRUE(small.try_charge(1_MiB));
  runtime_->run([&] {
    const time_point deadline = std::chrono::steady_clock::now() + 3ms;
    EXPECT_EQ(small.charge(64_KiB, deadline).error(), error_from(ETIMEDOUT));
    EXPECT_GE(std::chrono::steady_clock::now(), deadline);
  });
  small.release(1_MiB);
}

TEST_P(RuntimeMemoryTest, IdleStacksAreGivenBack) {
  const bytes before = budget_.used();
  {
    gate held;
    std::vector<task> tasks;
    for (int i = 0; i < 100; ++i) tasks.push_back(runtime_->spawn([&] { held.wait(); }));
    EXPECT_GE(budget_.used() - before, 64_KiB * 100);
    held.open();
    for (task& each : tasks) each.join();
  }
  budget_.reclaim(unlimited);
  EXPECT_LE(budget_.used() - before, 32_KiB);
  runtime_->run([] {});
}

// KF-42: a tick storm holds a bounded set of stacks. KF-38, design §8: once warm, it makes no system call for memory.
TEST_P(RuntimeMemoryTest, TickStormMapsNothingOnceItIsWarm) {
  constexpr int tasks_per_tick = 8;
  if (os::sequences() == os::sequence_mode::sharded && GetParam() > 1) {
    GTEST_SKIP() << "who meets an array that another holds takes from below: " << os::sequences_description();
  }
  // A CPU where nothing ran yet is not warm.
  const tests::keeper_at_rest keeps_arrays;
  const tests::stays_on_one_cpu pinned;
  start({});
  const auto storm = [this](int ticks) {
    runtime_->run([this, ticks] {
      for (int tick = 0; tick < ticks; ++tick) {
        std::array<task, tasks_per_tick> started;
        for (task& each : started) each = runtime_->spawn([] { this_task::yield(); });
        for (task& each : started) each.join();
      }
    });
    for (int i = 0; i < ticks; ++i) runtime_->run([] {});
  };
  storm(300);
  const std::uint64_t constructed = stack_figure("constructed");
  EXPECT_LE(constructed, 8U * (tasks_per_tick + 2));
  const bytes used = budget_.used();
  for (const os::call counted : {os::call::map, os::call::guard, os::call::protect, os::call::advise}) {
    os::fault::arm(counted, ~std::uint64_t{0}, ENOMEM);
    storm(400);
    const std::uint64_t calls = os::fault::uses();
    os::fault::disarm();
    EXPECT_EQ(calls, 0U) << "call " << static_cast<int>(counted);
  }
  EXPECT_EQ(stack_figure("constructed"), constructed);
  EXPECT_EQ(stack_figure("destroyed"), 0U);
  EXPECT_EQ(budget_.used(), used);
}

std::size_t count_threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

// KF-48: whatever fails first, second, third … while a runtime is created, its error comes out and nothing is left.
TEST(RuntimeCreateTest, FailsCleanlyWhicheverCallFails) {
  struct failing_call {
    os::call which;
    int error_number;
  };
  memory_budget budget("failing");
  const auto create = [&] {
    return runtime::create("failing", {.workers = 3, .stacks_reserved = 10, .budget = &budget});
  };
  // What is made once per process, such as the keeper or a sanitizer's own thread, is there from here on.
  { const auto first = create(); }
  {
    raw_cache used("used", {.size = 64});
    used.put(used.try_get());
  }
  const std::size_t threads = count_threads();
  for (const failing_call failing :
       {failing_call{os::call::event, EMFILE}, failing_call{os::call::ring_setup, ENOSYS},
        failing_call{os::call::ring_setup, EPERM}, failing_call{os::call::thread_create, EAGAIN},
        failing_call{os::call::map, ENOMEM}, failing_call{os::call::guard, ENOMEM}}) {
    std::uint64_t nth = 1;
    for (;; ++nth) {
      ASSERT_LT(nth, 1000U) << "call " << static_cast<int>(failing.which);
      os::fault::arm(failing.which, nth, failing.error_number);
      auto made = create();
      os::fault::disarm();
      if (!os::fault::fired()) {
        ASSERT_TRUE(made);
        (*made)->run([] {});
        break;
      }
      // A cache that cannot map many slabs at once maps one.
      if (made && failing.which == os::call::map) {
        (*made)->run([] {});
        continue;
      }
      ASSERT_FALSE(made) << "call " << static_cast<int>(failing.which) << " failed " << nth << " times";
      EXPECT_EQ(made.error(), error_from(failing.error_number));
      EXPECT_EQ(budget.used(), bytes{0});
      EXPECT_TRUE(tests::eventually([&] { return count_threads() <= threads; }));
    }
    EXPECT_GT(nth, 1U) << "call " << static_cast<int>(failing.which) << " is never made";
  }
}

TEST(RuntimeCreateTest, BudgetWithoutRoomIsAnError) {
  for (const bytes limit : {0_B, 4_KiB, 64_KiB}) {
    memory_budget tiny("tiny", {.limit = limit});
    const auto made = runtime::create("tiny", {.workers = 2, .stacks_reserved = 8, .budget = &tiny});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error(), error_from(ENOMEM));
    EXPECT_EQ(tiny.used(), bytes{0});
  }
}

TEST(RuntimeCreateTest, WorkersDefaultToTheCpusOfTheThread) {
  auto made = runtime::create("default", {});
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->workers(), static_cast<unsigned>(os::available_cpus()));
}

// KF-48: a stack that cannot be mapped or guarded while tasks run is the spawner's error only.
TEST_P(RuntimeMemoryTest, SpawnFailsCleanlyWhenTheSystemHasNoMemory) {
  for (const os::call failing : {os::call::map, os::call::guard}) {
    gate held;
    int accepted = 0;
    os::fault::arm(failing, 3, ENOMEM, true);
    EXPECT_THROW(for (; accepted < 200; ++accepted) runtime_->spawn_detached([&] { held.wait(); }), std::bad_alloc);
    EXPECT_TRUE(os::fault::fired());
    os::fault::disarm();
    EXPECT_EQ(runtime_->tasks(), static_cast<std::size_t>(accepted));
    runtime_->run([] {});
    let_all_go(held);
    budget_.reclaim(unlimited);
  }
}

// The stack was there, the memory of what the task and its handle share was not: the stack goes back.
TEST_P(RuntimeMemoryTest, SpawnThatFailsHalfWayGivesTheStackBack) {
  start({.stacks_reserved = 4, .task_limit = 4});
  for (int i = 0; i < 8; ++i) {
    os::fault::arm(os::call::map, 1, ENOMEM, true);
    EXPECT_THROW((void)runtime_->spawn([] {}), std::bad_alloc);
    os::fault::disarm();
  }
  EXPECT_EQ(stack_figure("objects_out"), 0U);
  runtime_->run([] {});
}

// KF-40: reserved stacks stay built, and keep a page each while nobody uses them.
TEST_P(RuntimeMemoryTest, ReservedStacksThatAreIdleGiveTheirPagesBack) {
  const tests::keeper_at_rest at_rest;
  start({.stack_size = 128_KiB, .stacks_reserved = 20});
  constexpr std::size_t depth = 60 << 10;
  std::mutex guard;
  std::vector<std::byte*> low;  // guarded by guard
  gate held;
  const auto run_deep = [&] {
    for (int i = 0; i < 20; ++i) {
      runtime_->spawn_detached([&] {
        auto* room = static_cast<std::byte*>(__builtin_alloca(depth));
        for (std::size_t at = 0; at < depth; at += page_size / 2) static_cast<volatile std::byte*>(room)[at] = {};
        {
          const std::lock_guard<std::mutex> locked(guard);
          low.push_back(room);
        }
        held.wait();
      });
    }
    ASSERT_TRUE(tests::eventually([&] {
      const std::lock_guard<std::mutex> locked(guard);
      return low.size() == 20;
    }));
  };
  const auto resident = [&] {
    std::size_t count = 0;
    for (std::byte* each : low) {
      auto* page = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(each) & ~(page_size - 1));
      const auto found = os::look_for_residents(page, {page_size});
      if (found && found->resident != bytes{0}) ++count;
    }
    return count;
  };
  run_deep();
  EXPECT_EQ(resident(), 20U);
  EXPECT_GE(runtime_->stack_high_water(), bytes{depth});
  EXPECT_LE(runtime_->stack_high_water(), bytes{depth} + 24_KiB);
  EXPECT_EQ(tests::stat_value("runtime/tested", "stack_high_water_bytes"), runtime_->stack_high_water().count);
  let_all_go(held);
  const std::uint64_t constructed = stack_figure("constructed");
  const bytes used = budget_.used();
  for (int round = 0; round < 4; ++round) cache::keeper::of_process().round();
  EXPECT_EQ(resident(), 0U);
  EXPECT_GE(stack_figure("scratch_given_back_bytes"), 20 * depth);
  EXPECT_GE(budget_.used() + 64_KiB, used) << "what is reserved stays charged";
  low.clear();
  run_deep();
  EXPECT_EQ(resident(), 20U);
  EXPECT_EQ(stack_figure("constructed"), constructed);
  runtime_.reset();
}

}  // namespace
}  // namespace larder

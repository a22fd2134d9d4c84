// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/lazy.h>
#include <larder/runtime.h>

#include "base/sanitizers.h"
#include "tests/support/eventually.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/one_cpu.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

// A coroutine that awaits it is suspended until somebody calls `open`, who runs it then.
class gate {
 public:
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) noexcept { waiting_.store(waiting.address()); }
  void await_resume() const noexcept {}
  bool has_waiter() const { return waiting_.load() != nullptr; }
  void open() { std::coroutine_handle<>::from_address(waiting_.exchange(nullptr)).resume(); }

 private:
  std::atomic<void*> waiting_{nullptr};
};

// Counts its instances.
struct counted {
  static inline std::size_t alive = 0;
  counted() { ++alive; }
  counted(const counted&) { ++alive; }
  counted(counted&&) noexcept { ++alive; }
  ~counted() { --alive; }
  counted& operator=(const counted&) = default;
};

class LazyTest : public testing::Test {
 protected:
  ~LazyTest() override {
    EXPECT_EQ(pooled_frame::frames().stats().objects_out, out_before) << "frames were left";
    EXPECT_EQ(counted::alive, 0U);
  }

  const tests::keeper_at_rest at_rest;
  const std::uint64_t out_before = pooled_frame::frames().stats().objects_out;
};

lazy<int> value_of(int value) { co_return value; }
lazy<> nothing() { co_return; }

// -- results

struct pair_of_ints {
  int first, second;
};
struct without_default {
  explicit without_default(int given) : value(given) {}
  int value;
};
lazy<std::unique_ptr<int>> owned_of(int value) { co_return std::make_unique<int>(value); }
lazy<std::string> text() { co_return "from a literal"; }
lazy<pair_of_ints> braced() { co_return {1, 2}; }
lazy<without_default> explicitly(int value) { co_return without_default(value); }
lazy<int&> itself(int& object) { co_return object; }
lazy<const int&> constant(const int& object) { co_return object; }
lazy<std::string&&> expiring(std::string& object) { co_return std::move(object); }

TEST_F(LazyTest, GivesWhatItReturns) {
  EXPECT_EQ(sync_wait(value_of(5)), 5);
  EXPECT_EQ(*sync_wait(owned_of(6)), 6);
  EXPECT_EQ(sync_wait(text()), "from a literal");
  EXPECT_EQ(sync_wait(braced()).second, 2);
  EXPECT_EQ(sync_wait(explicitly(7)).value, 7);
  sync_wait(nothing());
}

TEST_F(LazyTest, GivesReferencesToWhatItReturns) {
  int object = 1;
  EXPECT_EQ(&sync_wait(itself(object)), &object);
  EXPECT_EQ(&sync_wait(constant(object)), &object);
  std::string source = "long enough to be outside of the string itself";
  const std::string target = sync_wait(expiring(source));
  EXPECT_EQ(target, "long enough to be outside of the string itself");
  sync_wait([](int& changed) -> lazy<> { co_await itself(changed) = 2; }(object));
  EXPECT_EQ(object, 2);
}

TEST_F(LazyTest, StartsWhenItIsAwaitedAndResumesWhoAwaits) {
  std::string steps;
  const auto inner = [](std::string& log) -> lazy<> {
    log += "b";
    co_return;
  };
  const auto outer = [&inner](std::string& log) -> lazy<> {
    lazy<> made = inner(log);
    log += "a";
    co_await std::move(made);
    log += "c";
  };
  lazy<> work = outer(steps);
  EXPECT_EQ(steps, "");
  sync_wait(std::move(work));
  EXPECT_EQ(steps, "abc");
}

// -- exceptions

lazy<int> throws() {
  const counted local;
  throw std::runtime_error("from inside");
  co_return 0;
}

TEST_F(LazyTest, AnExceptionComesOutOfTheAwait) {
  const auto catches = []() -> lazy<std::string> {
    try {
      (void)co_await throws();
    } catch (const std::runtime_error& caught) {
      co_return caught.what();
    }
    co_return "nothing came out";
  };
  EXPECT_EQ(sync_wait(catches()), "from inside");
}

TEST_F(LazyTest, AnExceptionPassesThroughToTheThreadThatWaits) {
  const auto passes = []() -> lazy<int> {
    const counted local;
    co_return 1 + co_await throws();
  };
  EXPECT_THROW(sync_wait(passes()), std::runtime_error);
}

TEST_F(LazyTest, AResultThatCannotBeStoredIsAnException) {
  struct throws_when_copied {
    throws_when_copied() = default;
    throws_when_copied(const throws_when_copied&) { throw std::runtime_error("copy"); }
  };
  const auto copies = [](const throws_when_copied& object) -> lazy<throws_when_copied> { co_return object; };
  EXPECT_THROW((void)sync_wait(copies({})), std::runtime_error);
}

// -- ownership

template <typename Lazy>
concept can_be_awaited = requires(Lazy&& object) {
  std::forward<Lazy>(object).operator co_await();
};
static_assert(can_be_awaited<lazy<int>>);
static_assert(!can_be_awaited<lazy<int>&>);
static_assert(!std::is_copy_constructible_v<lazy<int>> && !std::is_copy_assignable_v<lazy<int>>);
static_assert(std::is_nothrow_move_constructible_v<lazy<int>> && std::is_nothrow_move_assignable_v<lazy<int>>);
static_assert(!std::is_default_constructible_v<lazy<int>>);
static_assert(std::is_base_of_v<pooled_frame, lazy<int>::promise_type>);

lazy<> holds(counted) { co_return; }

TEST_F(LazyTest, DestroyedBeforeItStartsItDestroysItsParameters) {
  {
    const lazy<> never = holds(counted());
    EXPECT_EQ(counted::alive, 1U);
  }
  EXPECT_EQ(counted::alive, 0U);
}

TEST_F(LazyTest, AMoveTakesTheCoroutineAlong) {
  lazy<> first = holds(counted());
  lazy<> second(std::move(first));
  EXPECT_EQ(counted::alive, 1U);
  lazy<> third = nothing();
  third = std::move(second);
  EXPECT_EQ(counted::alive, 1U);
  lazy<>& same = third;
  third = std::move(same);
  EXPECT_EQ(counted::alive, 1U);
  third = nothing();
  EXPECT_EQ(counted::alive, 0U) << "the coroutine that was there is destroyed";
  sync_wait(std::move(third));
}

// Runs until its first await that suspends.
struct started {
  struct promise_type : pooled_frame {
    started get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
  std::coroutine_handle<promise_type> coroutine;
};

TEST_F(LazyTest, DestroyedInTheMiddleItDestroysAllThatItAwaits) {
  gate closed;
  const auto inner = [](gate& waits_here) -> lazy<> {
    const counted local;
    co_await waits_here;
    ADD_FAILURE() << "went on";
  };
  const auto outer = [&inner](gate& waits_here) -> lazy<> {
    const counted local;
    co_await inner(waits_here);
  };
  std::optional<lazy<>> work = outer(closed);
  const started awaiting = [](std::optional<lazy<>>& awaited) -> started { co_await *std::move(awaited); }(work);
  EXPECT_EQ(counted::alive, 2U);
  EXPECT_TRUE(closed.has_waiter());
  work.reset();
  EXPECT_EQ(counted::alive, 0U);
  awaiting.coroutine.destroy();
}

TEST_F(LazyTest, MadeOnOneThreadItMayRunAndEndOnAnother) {
  for (int i = 0; i < 100; ++i) {
    lazy<int> work = value_of(i);
    lazy<int> unused = value_of(i);
    std::thread([i, moved = std::move(work), dropped = std::move(unused)]() mutable {
      EXPECT_EQ(sync_wait(std::move(moved)), i);
    }).join();
  }
}

// -- the stack

// The bytes between the lowest and the highest frame of functions that called `note`.
struct stack_extent {
  std::uintptr_t lowest = UINTPTR_MAX;
  std::uintptr_t highest = 0;
  [[gnu::noinline]] void note() {
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    lowest = std::min(lowest, here);
    highest = std::max(highest, here);
  }
  std::uintptr_t length() const { return highest - lowest; }
};

lazy<int> noted(stack_extent& stack, int value) {
  stack.note();
  co_return value;
}
lazy<std::int64_t> sum_below(stack_extent& stack, int count) {
  std::int64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += co_await noted(stack, i);
  co_return sum;
}
lazy<int> depth(stack_extent& stack, int left) {
  stack.note();
  const int below = left == 0 ? 0 : co_await depth(stack, left - 1);
  stack.note();
  if (left == 0) throw std::runtime_error("bottom");
  co_return below + 1;
}
lazy<int> depth_of_chain(stack_extent& stack, int left) {
  stack.note();
  if (left == 0) co_return 0;
  const int below = co_await depth_of_chain(stack, left - 1);
  stack.note();
  co_return below + 1;
}

// As much as a few calls take, and no more however often somebody awaits.
constexpr std::uintptr_t stack_max = 4096;

TEST_F(LazyTest, ALongLoopOfAwaitsKeepsTheStack) {
  stack_extent stack;
  EXPECT_EQ(sync_wait(sum_below(stack, 1'000'000)), 499'999'500'000);
  EXPECT_LE(stack.length(), stack_max);
}

TEST_F(LazyTest, ADeepChainOfAwaitsKeepsTheStack) {
  stack_extent stack;
  EXPECT_EQ(sync_wait(depth_of_chain(stack, 10'000)), 10'000);
  EXPECT_LE(stack.length(), stack_max);
}

TEST_F(LazyTest, AnExceptionClimbsADeepChain) {
  stack_extent stack;
  EXPECT_THROW(sync_wait(depth(stack, 10'000)), std::runtime_error);
}

// -- frames

TEST_F(LazyTest, WarmFramesAreNotMadeAgain) {
  const tests::stays_on_one_cpu stays;
  const auto constructed = [] {
    std::uint64_t sum = 0;
    for_each_stat([&sum](const stat& shown) {
      if (shown.component.starts_with("object_cache/frames/") && shown.name == "constructed") sum += shown.value;
    });
    return sum;
  };
  stack_extent stack;
  (void)sync_wait(sum_below(stack, 10));
  const std::uint64_t before = constructed();
  EXPECT_GT(before, 0U);
  (void)sync_wait(sum_below(stack, 10'000));
  EXPECT_EQ(constructed(), before);
}

TEST_F(LazyTest, WithoutRoomACallThrowsAndLeavesNothing) {
  memory_budget& budget = memory_budget::process();
  pooled_frame::frames().trim();
  const bytes rest = budget.limit() - budget.used();
  ASSERT_TRUE(budget.try_charge(rest));
  {
    std::vector<lazy<>> made;  // what slabs have room for that hold a frame already
    EXPECT_THROW(for (;;) made.push_back(holds(counted())), std::bad_alloc);
    EXPECT_EQ(counted::alive, made.size());
  }
  budget.release(rest);
  sync_wait(holds(counted()));
}

// -- waiting

TEST_F(LazyTest, TheThreadThatWaitsSleepsUntilAnotherHasResumed) {
  gate opened_elsewhere;
  std::thread::id ended_on;
  const auto waits = [](gate& waited, std::thread::id& ran_on) -> lazy<int> {
    co_await waited;
    ran_on = std::this_thread::get_id();
    co_return 7;
  };
  std::thread opener([&] {
    EXPECT_TRUE(tests::eventually([&] { return opened_elsewhere.has_waiter(); }));
    opened_elsewhere.open();
  });
  const std::thread::id other = opener.get_id();
  EXPECT_EQ(sync_wait(waits(opened_elsewhere, ended_on)), 7);
  opener.join();
  EXPECT_EQ(ended_on, other);
}

TEST_F(LazyTest, ATaskThatWaitsLeavesItsWorkerToOthers) {
  auto runtime = runtime::create("lazy", {.workers = 1});
  ASSERT_TRUE(runtime) << runtime.error().message();
  for (int i = 0; i < 100; ++i) {
    gate opened_by_task;
    int result = 0;
    task waiting = (*runtime)->spawn([&] {
      result = sync_wait([](gate& waited) -> lazy<int> {
        co_await waited;
        co_return 1;
      }(opened_by_task));
    });
    (*runtime)->run([&] {
      while (!opened_by_task.has_waiter()) this_task::yield();
      opened_by_task.open();
    });
    waiting.join();
    EXPECT_EQ(result, 1);
  }
}

TEST_F(LazyTest, ManyThreadsWaitAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int k = 0; k < 200; ++k) {
        gate between;
        std::thread opener([&] {
          while (!between.has_waiter()) std::this_thread::yield();
          between.open();
        });
        sync_wait([](gate& waited) -> lazy<> { co_await waited; }(between));
        opener.join();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LazyTest, ACoroutineMayWaitForAnotherAsAThreadDoes) {
  const auto nested = []() -> lazy<int> { co_return sync_wait(value_of(3)) + co_await value_of(4); };
  EXPECT_EQ(sync_wait(nested()), 7);
}

// -- misuse

class LazyDeathTest : public testing::Test {
 protected:
  LazyDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

constexpr const char* second_await = "larder: lazy.cc:[0-9]+: a lazy coroutine is awaited a second time\n";
constexpr const char* empty_await = "larder: lazy.cc:[0-9]+: a lazy coroutine is awaited that was moved from\n";

TEST_F(LazyDeathTest, ASecondAwaitDies) {
  const auto twice = []() -> lazy<int> {
    lazy<int> once = value_of(1);
    const int first = co_await std::move(once);
    co_return first + co_await std::move(once);  // NOLINT(bugprone-use-after-move)
  };
  EXPECT_DEATH((void)sync_wait(twice()), second_await);
}

TEST_F(LazyDeathTest, AWaitForOneThatWasAwaitedDies) {
  const auto gives_back = [](lazy<int>& once) -> lazy<> { (void)co_await std::move(once); };
  lazy<int> once = value_of(1);
  sync_wait(gives_back(once));
  EXPECT_DEATH((void)sync_wait(std::move(once)), second_await);
}

TEST_F(LazyDeathTest, AnAwaitOfOneThatWasMovedFromDies) {
  const auto moved = []() -> lazy<int> {
    lazy<int> first = value_of(1);
    const lazy<int> second = std::move(first);
    co_return co_await std::move(first);  // NOLINT(bugprone-use-after-move)
  };
  EXPECT_DEATH((void)sync_wait(moved()), empty_await);
}

TEST_F(LazyDeathTest, AWaitForOneThatWasMovedFromDies) {
  lazy<int> first = value_of(1);
  const lazy<int> second = std::move(first);
  EXPECT_DEATH((void)sync_wait(std::move(first)), empty_await);  // NOLINT(bugprone-use-after-move)
}

}  // namespace
}  // namespace larder

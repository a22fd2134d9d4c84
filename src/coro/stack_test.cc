// SPDX-License-Identifier: Apache-2.0
//
// Where the stacks of coroutines come from and go to.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>

#include "base/sanitizers.h"
#include "cache/keeper.h"
#include "os/cpu.h"
#include "os/fault.h"
#include "os/memory.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/one_cpu.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

std::uint64_t stacks_constructed(const char* size) {
  return tests::stat_value(std::string("object_cache/coroutines/") + size, "constructed").value_or(0);
}

// Where the stack of a fresh coroutine of that size lies.
std::uintptr_t fresh_stack_address(bytes stack_size) {
  std::uintptr_t address = 0;
  coroutine probe([&] { address = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)); },
                  {.stack_size = stack_size});
  probe.resume();
  return address;
}

TEST(StackTest, StackOfAnEndedCoroutineIsUsedAgain) {
  for (const bytes size : {16_KiB, 64_KiB, 1_MiB}) {
    const std::uintptr_t first = fresh_stack_address(size);
    const tests::stays_on_one_cpu pinned;
    const std::uintptr_t second = fresh_stack_address(size);
    EXPECT_EQ(fresh_stack_address(size), second) << size.count << " after " << first;
  }
}

TEST(StackTest, MostRecentlyUsedStackComesFirst) {
  const tests::stays_on_one_cpu pinned;
  std::array<std::uintptr_t, 3> addresses{};
  std::vector<std::unique_ptr<coroutine>> live;
  for (std::uintptr_t& address : addresses) {
    live.push_back(std::make_unique<coroutine>(
        [&address] { address = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)); },
        coroutine::options{.stack_size = 16_KiB}));
    live.back()->resume();
  }
  live[0].reset();
  live[2].reset();
  live[1].reset();
  EXPECT_EQ(fresh_stack_address(16_KiB), addresses[1]) << "the last that was put back";
}

// Goes `depth` bytes down from `top`, frame by frame; returns the number of frames.
[[gnu::noinline]] int descend(const std::byte* top, std::ptrdiff_t depth) {
  volatile char room[64] = {};
  if (top - static_cast<const std::byte*>(__builtin_frame_address(0)) >= depth) return 1;
  const int below = descend(top, depth);
  room[0] = static_cast<char>(below);
  return below + 1 + room[1];
}

// KF-37: a stack is at least what was asked for, also when a smaller one is free.
TEST(StackTest, IsAtLeastWhatWasAskedFor) {
#if defined(LARDER_ADDRESS_SANITIZER)
  constexpr std::ptrdiff_t left_for_callees = 12 << 10;  // what the sanitizer calls has large frames
#else
  constexpr std::ptrdiff_t left_for_callees = 2 << 10;
#endif
  for (const bytes asked : {16_KiB, 17_KiB, 32_KiB, 60_KiB, 64_KiB, 65_KiB, 100_KiB, 500_KiB, 1_MiB}) {
    fresh_stack_address(16_KiB);
    int frames = 0;
    coroutine deep(
        [&] {
          frames = descend(static_cast<const std::byte*>(__builtin_frame_address(0)),
                           static_cast<std::ptrdiff_t>(asked.count) - left_for_callees);
        },
        {.stack_size = asked});
    deep.resume();
    EXPECT_GT(frames, 1) << asked.count;
  }
}

// Idle stacks that all CPUs together may hold ready: 256 KiB for each, counting a page for each stack.
const std::uint64_t held_by_cpus = 64 * static_cast<std::uint64_t>(os::possible_cpus());

// KF-30: created on one thread, finished on another, over and over.
TEST(StackTest, CreatedHereAndFinishedThereStaysPooled) {
  const auto travel = [](int rounds) {
    for (int i = 0; i < rounds; ++i) {
      std::vector<std::unique_ptr<coroutine>> batch;
      for (int j = 0; j < 10; ++j) batch.push_back(std::make_unique<coroutine>([] { coroutine::yield(); }));
      for (const auto& each : batch) each->resume();
      std::thread([moved = std::move(batch)]() mutable {
        for (const auto& each : moved) each->resume();
        moved.clear();
      }).join();
    }
  };
  // What the finishing thread's CPU holds ready is bounded, so the number stays, however long it goes on.
  travel(30);
  const std::uint64_t before = stacks_constructed("64K");
  EXPECT_LE(before, 10 + held_by_cpus);
  travel(200);
  EXPECT_LE(stacks_constructed("64K"), 10 + held_by_cpus);
}

// KF-31, KF-33: what one thread gave back, another uses.
TEST(StackTest, IdleStacksAreThereForAnyThread) {
  const auto make_many = [] {
    std::vector<std::unique_ptr<coroutine>> live;
    for (int i = 0; i < 300; ++i) {
      live.push_back(std::make_unique<coroutine>([] { coroutine::yield(); }, coroutine::options{.stack_size = 32_KiB}));
      live.back()->resume();
    }
  };
  std::thread(make_many).join();
  const std::uint64_t before = stacks_constructed("32K");
  EXPECT_GE(before, 300U);
  std::thread(make_many).join();
  make_many();
  // A stack in the array of another CPU may be passed over, but those are few.
  EXPECT_LE(stacks_constructed("32K"), before + held_by_cpus);
}

// KF-33: idle stacks go back to the budget.
TEST(StackTest, IdleStacksAreGivenBackToTheProcessBudget) {
  memory_budget& process = memory_budget::process();
  process.reclaim(unlimited);
  const bytes before = process.used();
  {
    std::vector<std::unique_ptr<coroutine>> live;
    for (int i = 0; i < 200; ++i) {
      live.push_back(std::make_unique<coroutine>([] {}, coroutine::options{.stack_size = 128_KiB}));
    }
    EXPECT_GE(process.used() - before, 128_KiB * 200);
  }
  process.reclaim(unlimited);
  // An array of pointers for each CPU and the cache's own structure may have come.
  EXPECT_LE(process.used(), before + 64_KiB);
}

// Uses all of a stack but its last pages; returns an address near the end of what it used.
[[gnu::noinline]] std::byte* use_stack(std::size_t depth) {
  auto* room = static_cast<std::byte*>(__builtin_alloca(depth));
  for (std::size_t at = 0; at < depth; at += page_size / 2) static_cast<volatile std::byte*>(room)[at] = std::byte{1};
  return room;
}

bool is_resident(std::byte* address) {
  auto* page = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(address) & ~(page_size - 1));
  const auto found = os::look_for_residents(page, {page_size});
  EXPECT_TRUE(found);
  return found->resident != bytes{0};
}

// Three stacks of 16 KiB stand in a slab: where one lives, the others stay built, without their pages.
TEST(StackTest, IdleStacksBesideOneThatLivesGiveTheirPagesBackAndWorkAgain) {
  const tests::keeper_at_rest at_rest;
  const tests::stays_on_one_cpu pinned;
  memory_budget::process().reclaim(unlimited);
  std::vector<std::byte*> deep;
  std::vector<std::unique_ptr<coroutine>> live;
  for (int i = 0; i < 60; ++i) {
    live.push_back(std::make_unique<coroutine>(
        [&deep] {
          deep.push_back(use_stack(10 << 10));
          coroutine::yield();
        },
        coroutine::options{.stack_size = 16_KiB}));
    live.back()->resume();
    EXPECT_TRUE(is_resident(deep.back()));
  }
  for (std::size_t i = 0; i < live.size(); ++i) {
    if (i % 3 != 0) live[i].reset();
  }
  const std::uint64_t constructed = stacks_constructed("16K");
  for (int round = 0; round < 4; ++round) cache::keeper::of_process().round();
  for (std::size_t i = 0; i < live.size(); ++i) EXPECT_EQ(is_resident(deep[i]), live[i] != nullptr) << i;
  EXPECT_GE(coroutine::stack_high_water(16_KiB), 12_KiB);
  for (std::unique_ptr<coroutine>& each : live) {
    if (each != nullptr) {
      each->resume();
      EXPECT_TRUE(each->done());
    }
    each = std::make_unique<coroutine>([] { use_stack(10 << 10); }, coroutine::options{.stack_size = 16_KiB});
    each->resume();
  }
  // An old one goes only after its successor came: one more at a time than before.
  EXPECT_LE(stacks_constructed("16K"), constructed + 3);
}

// KF-41
TEST(StackDeathTest, AGuardOutlivesThePagesAboveIt) {
#if defined(LARDER_ADDRESS_SANITIZER)
  GTEST_SKIP() << "the address sanitizer catches the fault before";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const tests::stays_on_one_cpu pinned;
        std::byte* low = nullptr;
        const auto start = [&] { return coroutine([&low] { low = use_stack(10 << 10); }, {.stack_size = 16_KiB}); };
        coroutine stays = start();
        for (int i = 0; i < 2; ++i) start().resume();
        memory_budget::process().reclaim(unlimited);
        if (is_resident(low)) std::_Exit(0);
        start().resume();
        if (!is_resident(low)) std::_Exit(0);
        (void)report_stack_overflow();
        coroutine over([] { use_stack(17 << 10); }, {.stack_size = 16_KiB, .name = "over"});
        over.resume();
      },
      "\"over\" ran over the end of its stack of");
}

TEST(StackTest, HighWaterSaysHowDeepStacksOfASizeWere) {
  EXPECT_EQ(coroutine::stack_high_water(8_MiB), bytes{}) << "no such size";
  bytes most = coroutine::stack_high_water(512_KiB);  // other tests'
  for (const bytes depth : {20_KiB, 100_KiB, 50_KiB}) {
    coroutine one([depth] { use_stack(depth.count); }, {.stack_size = 512_KiB});
    one.resume();
    const bytes seen = coroutine::stack_high_water(300_KiB);
    EXPECT_GE(seen, std::max(depth, most));
    EXPECT_LE(seen, std::max(depth + 16_KiB, most)) << "with what the test's own frames need";
    EXPECT_EQ(tests::stat_value("coroutines/512K", "stack_high_water_bytes"), seen.count);
    most = seen;
  }
}

budget_charge charge_the_rest_of(memory_budget& budget) {
  const bytes rest = budget.limit() - budget.used();
  EXPECT_TRUE(budget.try_charge(rest));
  return {budget, rest};
}

// KF-31: no room is an error to the caller.
TEST(StackTest, FullBudgetThrowsBadAllocOnceNothingCanBeReclaimed) {
  memory_budget& process = memory_budget::process();
  coroutine first([] {}, {.stack_size = 256_KiB});
  process.reclaim(unlimited);
  std::vector<std::unique_ptr<coroutine>> live;
  const auto make_one = [&](bytes size) {
    live.push_back(std::make_unique<coroutine>([] {}, coroutine::options{.stack_size = size}));
  };
  {
    const budget_charge rest = charge_the_rest_of(process);
    const auto fill = [&] {
      for (;;) make_one(256_KiB);
    };
    EXPECT_THROW(fill(), std::bad_alloc);
    EXPECT_LT(live.size(), 8U) << "what a slab held besides the first";
    EXPECT_THROW(make_one(256_KiB), std::bad_alloc) << "and again";
  }
  for (int i = 0; i < 20; ++i) make_one(512_KiB);
  live.clear();
  // Full again, but with idle stacks of another size: they are given up for the new ones.
  const budget_charge rest = charge_the_rest_of(process);
  for (int i = 0; i < 10; ++i) make_one(256_KiB);
  EXPECT_LE(process.used(), process.limit());
}

// KF-31, KF-48: a mapping or a guard that cannot be had is an error to the caller, and the budget is as before.
TEST(StackTest, FailedMappingOrGuardThrowsBadAllocAndLeavesTheBudget) {
  memory_budget& process = memory_budget::process();
  coroutine first([] {}, {.stack_size = 512_KiB});  // the cache is there
  process.reclaim(unlimited);
  const bytes before = process.used();
  for (const os::call failing : {os::call::map, os::call::guard}) {
    for (std::uint64_t nth = 1; nth <= 4; ++nth) {
      std::vector<std::unique_ptr<coroutine>> live;
      os::fault::arm(failing, nth, ENOMEM, true);
      try {
        // More than the address space that is left of what went before.
        for (int i = 0; i < 1000; ++i) {
          live.push_back(std::make_unique<coroutine>([] {}, coroutine::options{.stack_size = 512_KiB}));
        }
        ADD_FAILURE() << "1000 stacks without a mapping or a guard";
      } catch (const std::bad_alloc&) {
        EXPECT_TRUE(os::fault::fired());
      }
      os::fault::disarm();
      for (const auto& each : live) each->resume();
      coroutine after([] {}, {.stack_size = 512_KiB});
      after.resume();
      EXPECT_TRUE(after.done());
    }
  }
  process.reclaim(unlimited);
  EXPECT_LE(process.used(), before + 16_KiB);
}

bool kernel_has_guard_markers() {
  void* page = ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool has = ::madvise(page, page_size, 102 /* MADV_GUARD_INSTALL */) == 0;
  ::munmap(page, page_size);
  return has;
}

std::size_t count_mappings() {
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  std::size_t lines = 0;
  for (int letter = 0; (letter = std::fgetc(maps)) != EOF;) lines += letter == '\n' ? 1 : 0;
  std::fclose(maps);
  return lines;
}

// KF-32: 1,000,000 coroutines in at most 1,000 mappings; here, a share of them.
TEST(StackTest, ManyGuardedStacksNeedFewMappings) {
  if (!kernel_has_guard_markers()) GTEST_SKIP() << "this kernel has no MADV_GUARD_INSTALL: a guard costs a mapping";
#if defined(LARDER_THREAD_SANITIZER)
  GTEST_SKIP() << "the thread sanitizer maps memory of its own for each coroutine";
#endif
  constexpr std::size_t count = 30'000;
  std::vector<coroutine> live;
  live.reserve(count);
  const std::size_t before = count_mappings();
  for (std::size_t i = 0; i < count; ++i) {
    live.emplace_back([] { coroutine::yield(); }, coroutine::options{.stack_size = 16_KiB});
    live.back().resume();
  }
  EXPECT_LE(count_mappings(), before + count / 1000 + 10);
}

#if defined(LARDER_ADDRESS_SANITIZER)
// KF-39: what is written into the stack of an ended coroutine is seen.
TEST(StackDeathTest, WriteIntoAnEndedCoroutinesStackIsReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  volatile int* left_behind = nullptr;
  {
    coroutine short_lived([&] {
      volatile int local = 1;
      left_behind = &local;
      coroutine::yield();
    });
    short_lived.resume();
  }
  EXPECT_DEATH(*left_behind = 2, "use-after-poison");
}
#endif

}  // namespace
}  // namespace larder

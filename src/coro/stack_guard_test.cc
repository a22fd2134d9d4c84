// SPDX-License-Identifier: Apache-2.0
//
// Stacks on a system that has no guard markers, as before Linux 6.13.
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>

#include "os/fault.h"
#include "os/guard.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

class StackGuardTest : public testing::Test {
 protected:
  StackGuardTest() {
    process.reclaim(unlimited);
    os::fault::arm(os::call::guard, 1, EINVAL, true);
    EXPECT_TRUE(set_stack_guard_share(share));
    EXPECT_EQ(os::guards().protections, 0U);
    most = os::guards().protections_max;
  }
  ~StackGuardTest() override {
    live.clear();
    process.reclaim(unlimited);
    EXPECT_EQ(os::guards().protections, 0U) << "guards of stacks that are no more";
    EXPECT_TRUE(set_stack_guard_share(50));
    os::fault::disarm();
  }

  void make_one(bytes stack_size) {
    live.push_back(std::make_unique<coroutine>(
        [] {
          for (;;) coroutine::yield();
        },
        coroutine::options{.stack_size = stack_size}));
    live.back()->resume();
  }
  void make_all_there_are(bytes stack_size) {
    EXPECT_THROW(
        for (;;) {
          make_one(stack_size);
          ASSERT_LE(live.size(), most);
        },
        std::bad_alloc);
  }

  static constexpr unsigned share = 2;  // some 655 guards
  const tests::keeper_at_rest at_rest;
  memory_budget& process = memory_budget::process();
  std::vector<std::unique_ptr<coroutine>> live;
  std::size_t most = 0;
};

// KF-31, KF-32: no more mappings than the share, then an error to whoever makes one; what there is goes on.
TEST_F(StackGuardTest, BeyondTheShareMakingOneThrowsAndTheOthersGoOn) {
  for (const bytes size : {16_KiB, 128_KiB}) {
    const bytes before = process.used();
    make_all_there_are(size);
    EXPECT_EQ(live.size(), most);
    EXPECT_EQ(os::guards().protections, most);
    EXPECT_EQ(tests::stat_value("stack_guards", "protections"), most);
    EXPECT_EQ(tests::stat_value("stack_guards", "protections_max"), most);
    EXPECT_THROW(make_one(size), std::bad_alloc) << "and again";
    for (const auto& each : live) each->resume();
    live.clear();
    process.reclaim(unlimited);
    EXPECT_EQ(os::guards().protections, 0U);
    EXPECT_LE(process.used(), before + 64_KiB) << "but for arrays of pointers";
  }
}

TEST_F(StackGuardTest, OnesThatEndMakeRoom) {
  make_all_there_are(32_KiB);
  for (int round = 0; round < 3; ++round) {
    live.erase(live.begin(), live.begin() + 10);
    for (int i = 0; i < 10; ++i) make_one(32_KiB);
    EXPECT_THROW(make_one(32_KiB), std::bad_alloc);
    EXPECT_EQ(live.size(), most);
  }
}

// Idle stacks of another size hold the guards; memory there is enough.
TEST_F(StackGuardTest, IdleStacksOfAnotherSizeMakeRoom) {
  make_all_there_are(16_KiB);
  EXPECT_THROW(make_one(128_KiB), std::bad_alloc);
  live.resize(live.size() - 60);
  const std::size_t others = live.size();
  // Slabs of three: the last may hold one that lives.
  for (int i = 0; i < 50; ++i) make_one(128_KiB);
  EXPECT_EQ(live.size(), others + 50);
  for (const auto& each : live) each->resume();
}

TEST_F(StackGuardTest, AFailedProtectionThrowsAndTakesNoneOfTheShare) {
  make_one(128_KiB);
  const std::size_t before = os::guards().protections;
  // Neither markers nor protections; mappings neither, but one slab's worth of addresses may be there.
  os::fault::arm(os::call::any, 1, EACCES, true);
  EXPECT_THROW(for (;;) make_one(128_KiB), std::bad_alloc);
  EXPECT_TRUE(os::fault::fired());
  os::fault::arm(os::call::guard, 1, EINVAL, true);
  EXPECT_EQ(os::guards().protections, before + live.size() - 1);
  make_one(128_KiB);
}

// A smaller share from now on: stacks that are there stay, and can be used again.
TEST_F(StackGuardTest, ASmallerShareTakesNoStackAway) {
  for (int i = 0; i < 20; ++i) make_one(128_KiB);
  EXPECT_TRUE(set_stack_guard_share(0));
  EXPECT_THROW(make_one(128_KiB), std::bad_alloc);
  for (const auto& each : live) each->resume();
  live.pop_back();
  make_one(128_KiB);
  EXPECT_TRUE(set_stack_guard_share(share));
  make_one(128_KiB);
  EXPECT_EQ(set_stack_guard_share(101).error(), error_from(EINVAL));
  EXPECT_EQ(stack_guard_share(), share);
}

// KF-41
TEST_F(StackGuardTest, OverflowDiesAtAGuardByProtection) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  struct frames {
    [[gnu::noinline]] static int more(int depth) {
      volatile char room[256] = {};
      room[0] = static_cast<char>(depth);
      return depth < 0 ? 0 : more(depth + 1) + room[0];
    }
  };
  EXPECT_DEATH(
      {
        coroutine deep([] { frames::more(0); });
        if (os::guards().protections == 0) std::_Exit(0);
        deep.resume();
      },
      "");
}

}  // namespace
}  // namespace larder

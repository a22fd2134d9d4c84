// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <thread>

#include <gtest/gtest.h>

#include <larder/coroutine.h>

#include "base/sanitizers.h"

#if !defined(LARDER_ADDRESS_SANITIZER) && !defined(LARDER_THREAD_SANITIZER)  // which report faults themselves

namespace larder {
namespace {

class OverflowDeathTest : public testing::Test {
 protected:
  OverflowDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

[[gnu::noinline]] int fill_the_stack(int depth) {
  volatile char room[256] = {};
  room[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : fill_the_stack(depth + 1) + room[0];
}

// KF-41
TEST_F(OverflowDeathTest, OverflowIsReportedByName) {
  EXPECT_DEATH(
      {
        EXPECT_TRUE(report_stack_overflow());
        coroutine outer(
            [] {
              coroutine deep([] { fill_the_stack(0); }, {.stack_size = 32_KiB, .name = "deep"});
              deep.resume();
            },
            {.name = "outer"});
        outer.resume();
      },
      "coroutine \"deep\" ran over the end of its stack of 32 KiB, at .* \\(nested 2 deep\\)");
}

TEST_F(OverflowDeathTest, OverflowIsReportedOnThreadsThatComeLater) {
  EXPECT_DEATH(
      {
        EXPECT_TRUE(report_stack_overflow());
        std::thread([] {
          coroutine deep([] { fill_the_stack(0); }, {.name = "deep"});
          deep.resume();
        }).join();
      },
      "coroutine \"deep\" ran over the end of its stack of 64 KiB");
}

TEST_F(OverflowDeathTest, OtherFaultsGoToWhoWasThereBefore) {
  EXPECT_EXIT(
      {
        EXPECT_TRUE(report_stack_overflow());
        coroutine stray([] { *reinterpret_cast<volatile int*>(16) = 1; });
        stray.resume();
      },
      testing::KilledBySignal(SIGSEGV), "");
}

}  // namespace
}  // namespace larder

#endif

// SPDX-License-Identifier: Apache-2.0
#include "os/cpu.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/support/one_cpu.h"

namespace larder::os {
namespace {

TEST(CpuTest, CountsAgree) {
  EXPECT_GE(available_cpus(), 1);
  EXPECT_LE(available_cpus(), possible_cpus());
  EXPECT_LT(current_cpu(), possible_cpus());
  EXPECT_GE(current_cpu(), 0);
}

// KF-13: what is sized by possible_cpus holds wherever the thread is moved to.
TEST(CpuTest, CurrentCpuStaysBelowPossibleWhileTheAffinityChanges) {
  std::thread([] {
    for (const int cpu : tests::allowed_cpus()) {
      tests::stay_on(cpu);
      EXPECT_EQ(current_cpu(), cpu);
      EXPECT_LT(cpu, possible_cpus());
      EXPECT_EQ(available_cpus(), 1);
    }
  }).join();
}

}  // namespace
}  // namespace larder::os

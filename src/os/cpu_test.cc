// SPDX-License-Identifier: Apache-2.0
#include "os/cpu.h"

#include <sched.h>

#include <cstddef>
#include <thread>

#include <gtest/gtest.h>

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
    cpu_set_t allowed;
    ASSERT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      cpu_set_t only;
      CPU_ZERO(&only);
      CPU_SET(cpu, &only);
      ASSERT_EQ(::sched_setaffinity(0, sizeof only, &only), 0);
      EXPECT_EQ(current_cpu(), static_cast<int>(cpu));
      EXPECT_LT(static_cast<int>(cpu), possible_cpus());
      EXPECT_EQ(available_cpus(), 1);
    }
  }).join();
}

}  // namespace
}  // namespace larder::os

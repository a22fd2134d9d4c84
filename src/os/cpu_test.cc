// SPDX-License-Identifier: Apache-2.0
#include "os/cpu.h"

#include <sched.h>

#include <cstddef>
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
    const cpu_set_t allowed = tests::allowed_cpus();
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      tests::stay_on(static_cast<int>(cpu));
      EXPECT_EQ(current_cpu(), static_cast<int>(cpu));
      EXPECT_LT(static_cast<int>(cpu), possible_cpus());
      EXPECT_EQ(available_cpus(), 1);
    }
  }).join();
}

}  // namespace
}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <vector>

#include <gtest/gtest.h>

namespace larder::tests {

// Moves the calling thread, and those that it starts from now on.
inline void stay_on(int cpu) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<unsigned>(cpu), &only);
  ASSERT_EQ(::sched_setaffinity(0, sizeof only, &only), 0) << "to CPU " << cpu;
}

// Where the calling thread may run.
inline cpu_set_t allowed_set() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  EXPECT_EQ(::sched_getaffinity(0, sizeof allowed, &allowed), 0);
  return allowed;
}

// The same as numbers, which need not begin with 0 nor follow each other.
inline std::vector<int> allowed_cpus(const cpu_set_t& allowed = allowed_set()) {
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<unsigned>(cpu), &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

// Keeps the calling thread, and those that it starts meanwhile, on one CPU, so that they meet one array of each cache.
class stays_on_one_cpu {
 public:
  stays_on_one_cpu() { stay_on(::sched_getcpu()); }
  ~stays_on_one_cpu() { end(); }
  stays_on_one_cpu(const stays_on_one_cpu&) = delete;
  stays_on_one_cpu& operator=(const stays_on_one_cpu&) = delete;

  // Where the thread was allowed, and is again afterwards.
  const cpu_set_t& before() const { return before_; }
  void end() const { EXPECT_EQ(::sched_setaffinity(0, sizeof before_, &before_), 0); }

 private:
  const cpu_set_t before_ = allowed_set();
};

}  // namespace larder::tests

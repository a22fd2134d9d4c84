// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

namespace larder::tests {

// Keeps the calling thread, and those that it starts meanwhile, on one CPU, so that they meet one array of each cache.
class stays_on_one_cpu {
 public:
  stays_on_one_cpu() {
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
  ~stays_on_one_cpu() { ::sched_setaffinity(0, sizeof before_, &before_); }
  stays_on_one_cpu(const stays_on_one_cpu&) = delete;
  stays_on_one_cpu& operator=(const stays_on_one_cpu&) = delete;

 private:
  cpu_set_t before_{};
};

}  // namespace larder::tests

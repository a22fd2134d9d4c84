// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>

#include <larder/units.h>

namespace larder::os {

#ifdef LARDER_SCHEDULED
time_point now();  // the scheduler's
inline time_point coarse_now() { return now(); }
#else
inline time_point now() { return std::chrono::steady_clock::now(); }

// The same clock some milliseconds ago at most, at a fraction of the price.
inline time_point coarse_now() {
  timespec at{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &at);
  return time_point(std::chrono::seconds(at.tv_sec) + std::chrono::nanoseconds(at.tv_nsec));
}
#endif

}  // namespace larder::os

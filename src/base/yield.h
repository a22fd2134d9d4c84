// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <thread>

#include "base/schedule.h"

namespace larder::base {

// For every loop that waits for what other threads do: lets them run. The scheduled build does not count such a loop as
// endless while others can go on.
inline void yield() {
#ifdef LARDER_SCHEDULED
  schedule::yield();
#else
  std::this_thread::yield();
#endif
}

}  // namespace larder::base

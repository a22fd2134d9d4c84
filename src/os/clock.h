// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/units.h>

namespace larder::os {

#ifdef LARDER_SCHEDULED
time_point now();  // the scheduler's
#else
inline time_point now() { return std::chrono::steady_clock::now(); }
#endif

}  // namespace larder::os

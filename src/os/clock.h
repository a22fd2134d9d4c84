// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/units.h>

namespace larder::os {

inline time_point now() { return std::chrono::steady_clock::now(); }

}  // namespace larder::os

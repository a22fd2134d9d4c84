// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <larder/units.h>

#include "base/atomic.h"

namespace larder::os {

// Sleeps while `word` is `expected`; may return early for no reason. False when the deadline passed.
bool futex_wait(base::atomic<std::uint32_t>& word, std::uint32_t expected, time_point deadline);
void futex_wake_one(base::atomic<std::uint32_t>& word);

}  // namespace larder::os

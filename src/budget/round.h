// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "budget/tree.h"

namespace larder::budget {

// How long who found nothing to reclaim, so many times in a row after the first, leaves it alone: 1 ms to 1 s.
std::chrono::nanoseconds pause_after(std::uint32_t failures);

// One visit of the page daemon: reclaims a bounded amount for each budget of the tree that has called it. Says when the
// next visit is due, `now` for at once; `no_deadline` if it is to wait for a call.
time_point reclaim_round(tree& in, time_point now);

}  // namespace larder::budget

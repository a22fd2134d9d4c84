// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "base/scheduled_atomic.h"

namespace larder::base {

// All shared state of the library goes through these names, so that the scheduled build can put a scheduling point
// before each operation. A memory order that is not sequentially consistent says, where it is used, why and who its
// partner is.
#ifndef LARDER_SCHEDULED
template <typename T>
using atomic = std::atomic<T>;
#endif

// Statistics and test switches: they order nothing and nobody acts upon them, so they are no scheduling points.
template <typename T>
using passive_atomic = std::atomic<T>;

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

}  // namespace larder::base

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace larder::base {

// All shared state of the library goes through these names, so that one build can put a scheduling point behind each
// operation. A memory order that is not sequentially consistent says, where it is used, why and who its partner is.
template <typename T>
using atomic = std::atomic<T>;

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

}  // namespace larder::base

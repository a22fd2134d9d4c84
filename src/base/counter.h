// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/atomic.h"

namespace larder::base {

// Statistics, shown through the registry. A figure orders nothing and publishes nothing, so all of it is relaxed:
// readers see each count as it was at some instant, and the scheduled build does not schedule it.

// Counted by any thread, where that is rare enough to share a line.
class counter {
 public:
  void add(std::uint64_t by = 1) { count_.fetch_add(by, memory_order_relaxed); }
  std::uint64_t value() const { return count_.load(memory_order_relaxed); }

 private:
  passive_atomic<std::uint64_t> count_{0};
};

// Counted by one thread, or under a lock, and read by any: an addition costs a load and a store.
class owned_counter {
 public:
  void add(std::uint64_t by = 1) { count_.store(value() + by, memory_order_relaxed); }
  void subtract(std::uint64_t by) { count_.store(value() - by, memory_order_relaxed); }
  std::uint64_t value() const { return count_.load(memory_order_relaxed); }

 private:
  passive_atomic<std::uint64_t> count_{0};
};

}  // namespace larder::base

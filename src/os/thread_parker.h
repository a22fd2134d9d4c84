// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/atomic.h"
#include "os/parker.h"

namespace larder::os {

// A thread's parker is one futex word: empty, token or asleep. `unpark` stores the token and wakes only a sleeper;
// `park` takes it or sleeps.
class thread_parker final : public parker {
 public:
  void park() override { park_until(no_deadline); }
  bool park_until(time_point deadline) override;
  void unpark() override;
  // Acquire: what is looked at next is not older.
  bool is_parked() const override { return word_.load(base::memory_order_acquire) == asleep; }

  thread_parker* next_unused = nullptr;  // guarded by the pool's mutex (parker.cc)

 private:
  static constexpr std::uint32_t empty = 0;
  static constexpr std::uint32_t token = 1;
  static constexpr std::uint32_t asleep = 2;
  base::atomic<std::uint32_t> word_{empty};
};

}  // namespace larder::os

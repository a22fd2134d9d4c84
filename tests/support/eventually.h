// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <thread>

namespace larder::tests {

// Waits until `holds()` is true; false if it never was within ten seconds.
template <typename Predicate>
bool eventually(Predicate holds) {
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > patience) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

}  // namespace larder::tests

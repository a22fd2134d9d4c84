// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace larder::tests {

// The random choices of one test. Every failure while it lives names the seed; LARDER_TEST_SEED in the environment
// replays it. One thread's.
class model_random {
 public:
  // `stream` tells apart the generators of one test's threads. Google Test keeps by thread what it shows with a
  // failure: a generator on a task that may change its thread is not `shown`.
  explicit model_random(std::uint64_t stream = 0, bool shown = true) : engine_(run_seed() + stream) {
    if (shown) trace_.emplace(__FILE__, __LINE__, "replay with LARDER_TEST_SEED=" + std::to_string(run_seed()));
  }

  // Evenly from 0 … bound - 1.
  std::uint64_t below(std::uint64_t bound) {
    return std::uniform_int_distribution<std::uint64_t>(0, bound - 1)(engine_);
  }
  // Evenly from least … most.
  std::uint64_t between(std::uint64_t least, std::uint64_t most) { return least + below(most - least + 1); }
  bool one_in(std::uint64_t times) { return below(times) == 0; }

 private:
  static std::uint64_t run_seed() {
    static const std::uint64_t seed = [] {
      const char* given = std::getenv("LARDER_TEST_SEED");
      return given != nullptr ? std::strtoull(given, nullptr, 10) : std::uint64_t{std::random_device{}()};
    }();
    return seed;
  }

  std::mt19937_64 engine_;
  std::optional<const testing::ScopedTrace> trace_;
};

}  // namespace larder::tests

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace larder::simulation {

// The one source of every choice of a story: the same numbers for the same seed, with any compiler and library.
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_(seed) {}

  // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
  std::uint64_t next() { return mixed(state_ += 0x9E3779B97F4A7C15U); }
  // Evenly from 0 … bound - 1, as near as makes no difference for a bound far below 2^32.
  std::uint64_t below(std::uint64_t bound) { return ((next() >> 32) * bound) >> 32; }
  // Evenly from least … most.
  std::uint64_t between(std::uint64_t least, std::uint64_t most) { return least + below(most - least + 1); }
  bool one_in(std::uint64_t times) { return below(times) == 0; }
  // True `per_mille` times in 1000.
  bool happens(std::uint64_t per_mille) { return below(1000) < per_mille; }

  static std::uint64_t mixed(std::uint64_t value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
    return value ^ (value >> 31);
  }

 private:
  std::uint64_t state_;
};

}  // namespace larder::simulation

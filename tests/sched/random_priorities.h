// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>

#include "tests/sched/decision.h"

namespace larder::sched {

// PCT (Burckhardt and others, 2010): threads have random priorities, the highest that can run does, and at depth - 1
// random steps whoever runs falls below all others. A fault that needs d orderings among n threads and k steps is hit
// by a schedule with a probability of at least 1 / (n k^(d-1)).
class random_priorities final : public strategy {
 public:
  random_priorities(std::uint64_t seed, unsigned depth) : random_(seed), depth_(std::min(depth, depth_max)) {}

  // Before each schedule; `steps` is how long they are.
  void begin(unsigned steps);
  unsigned choose(const decision& open) override;

 private:
  static constexpr unsigned depth_max = 8;
  // How often the system interferes where it may.
  static constexpr std::uint64_t interferes_one_in = 16;

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  unsigned highest(const decision& open) const;

  std::mt19937_64 random_;
  const unsigned depth_;
  std::array<unsigned, threads_max> priorities_{};
  std::array<std::uint64_t, depth_max> falls_{};  // the steps at which somebody falls
  std::uint64_t step_ = 0;
};

}  // namespace larder::sched

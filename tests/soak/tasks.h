// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/atomic.h"
#include "tests/support/model_random.h"

namespace larder::tests {

// Families of tasks on one runtime: a task spawns others, on its worker and on others, joins them or does not, throws,
// yields, sleeps, locks, and has coroutines.
class soaked_tasks {
 public:
  // Of all families, roughly: what bounds the stacks.
  static constexpr std::size_t alive_max = 1000;

  explicit soaked_tasks(runtime& where) : runtime_(where) {}

  // One family, from a thread; returns when its first task has ended and not too many others are alive.
  void run_family(model_random& random);
  // Once the runtime is gone. Returns how many there were.
  std::uint64_t check_at_rest();

 private:
  static constexpr int generations = 4;
  struct failure {};

  void live(std::uint32_t seed, int generation, bool may_throw);
  void spawn_child(std::minstd_rand& random, int generation);
  void visit(std::minstd_rand& random);
  void have_a_coroutine(std::minstd_rand& random);

  runtime& runtime_;
  mutex guard_;
  std::uint64_t visits_ = 0;  // guarded by guard_
  std::uint64_t echo_ = 0;    // guarded by guard_; equal to visits_ whenever it is free
  base::atomic<std::uint64_t> visits_expected_{0};
  base::atomic<std::uint64_t> begun_{0};
  base::atomic<std::uint64_t> ended_{0};
  base::atomic<std::uint64_t> thrown_{0};
  base::atomic<std::uint64_t> caught_{0};
};

}  // namespace larder::tests

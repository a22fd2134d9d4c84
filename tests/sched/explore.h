// SPDX-License-Identifier: Apache-2.0
//
// How a test uses the scheduler; docs/scheduler.md has a complete example.
//
//   EXPECT_TRUE(no_schedule_fails<my_scenario>({.preemptions = 3}));
//   EXPECT_TRUE(mutant_is_killed<my_scenario>(base::mutant::pop_one));
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "base/mutant.h"
#include "tests/sched/depth_first.h"
#include "tests/sched/engine.h"

namespace larder::sched {

// How far to search. First depth-first with 0, 1, ... `preemptions`, or at once without a bound; then at random.
struct search_options {
  unsigned preemptions = 2;
  bool reduces = true;                    // sleep sets, when there is no bound
  std::uint64_t schedules_max = 200'000;  // of the depth-first search
  std::uint64_t random_schedules = 2'000;
  unsigned random_depth = 4;  // orderings that a fault may need
  system_settings system = {};
};

struct failure {
  std::string message;
  std::string schedule;  // replays it
  std::string found_by;
  std::string trace;
  bool reproduced = false;  // a second run went the same way
};

struct search_report {
  std::uint64_t schedules = 0;
  std::uint64_t redundant = 0;  // of these, cut off by the reduction
  std::uint64_t random_schedules = 0;
  unsigned steps_most = 0;   // of one schedule
  unsigned preemptions = 0;  // the bound that was searched last
  bool exhausted = false;    // that bound was searched to its end
  bool complete = false;     // and nothing was cut off by it: these are all schedules there are
  double seconds = 0;
  std::optional<failure> first_failure;
};

// Stops at the first failure. With LARDER_SCHEDULE in the environment only that schedule is run; LARDER_TEST_SEED
// changes the seed of the random part; LARDER_PREEMPTIONS searches deeper. Prints a line of figures.
search_report explore(const scenario_factory& factory, const search_options& options);
// The same without the line, and as deep as asked for.
search_report run_search(const scenario_factory& factory, const search_options& options);

// Runs one schedule as its text says; its trace is always taken.
outcome run_schedule(const scenario_factory& factory, const system_settings& system, const std::string& schedule);

testing::AssertionResult has_no_failure(const search_report& report);
// The search found a failure, and it can be replayed.
testing::AssertionResult has_failure(const search_report& report);

// While it lives, `which` is compiled into the code under test.
class switched_mutant {
 public:
  explicit switched_mutant(base::mutant which) { base::active_mutant = which; }
  ~switched_mutant() { base::active_mutant = base::mutant::none; }
  switched_mutant(const switched_mutant&) = delete;
  switched_mutant& operator=(const switched_mutant&) = delete;
};

template <typename Scenario>
search_report explore(const search_options& options = {}) {
  return explore([] { return std::make_unique<Scenario>(); }, options);
}

template <typename Scenario>
testing::AssertionResult no_schedule_fails(const search_options& options = {}) {
  return has_no_failure(explore<Scenario>(options));
}

template <typename Scenario>
testing::AssertionResult mutant_is_killed(base::mutant which, const search_options& options = {}) {
  const switched_mutant on(which);
  return has_failure(explore<Scenario>(options));
}

}  // namespace larder::sched

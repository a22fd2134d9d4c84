// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/explore.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <regex>

#include "tests/sched/random_priorities.h"
#include "tests/sched/replay.h"

namespace larder::sched {
namespace {

constexpr std::uint64_t default_seed = 1;  // every run is the same, unless told otherwise

std::uint64_t seed_of_run() {
  const char* given = std::getenv("LARDER_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : default_seed;
}

// LARDER_PREEMPTIONS in the environment: a deeper search than a test asks for, however long that takes.
search_options deepened(search_options options) {
  constexpr std::uint64_t random_times = 100;
  const char* given = std::getenv("LARDER_PREEMPTIONS");
  if (given == nullptr || options.preemptions == unbounded) return options;
  options.preemptions = std::max(options.preemptions, static_cast<unsigned>(std::strtoul(given, nullptr, 10)));
  options.schedules_max = std::numeric_limits<std::uint64_t>::max();
  options.random_schedules *= random_times;
  return options;
}

// A message may show addresses, and those are others in a second run.
std::string without_addresses(const std::string& message) {
  return std::regex_replace(message, std::regex("0x[0-9a-f]+"), "0x");
}

// A livelock is long, and its end says as much as all of it.
constexpr std::size_t trace_lines_max = 200;

std::string end_of(const std::vector<std::string>& lines) {
  const std::size_t left_out = lines.size() - std::min(lines.size(), trace_lines_max);
  std::string text = left_out == 0 ? "" : "    (" + std::to_string(left_out) + " steps)\n";
  for (std::size_t line = left_out; line < lines.size(); ++line) text += "    " + lines[line] + "\n";
  return text;
}

// One search: its engine, and what it has found.
class search {
 public:
  search(const scenario_factory& factory, const search_options& options)
      : factory_(factory), options_(options), engine_(factory, options.system) {}

  search_report run() {
    const auto begin = std::chrono::steady_clock::now();
    if (const char* given = std::getenv("LARDER_SCHEDULE"); given != nullptr) {
      run_given(given);
    } else {
      search_in_depth();
      if (!report_.first_failure && !report_.complete) search_at_random();
    }
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report_;
  }

 private:
  void run_given(const char* schedule) {
    replay again(from_text(schedule));
    found_by_ = "LARDER_SCHEDULE";
    note(engine_.run(again, true));
    if (again.diverged()) std::printf("    this is no schedule of this test: it went another way\n");
  }

  void search_in_depth() {
    const bool bounded = options_.preemptions != unbounded;
    for (unsigned bound = bounded ? 0 : unbounded;; ++bound) {
      report_.preemptions = bound;
      found_by_ = "depth-first search with " + bound_text() + " preemptions";
      // A store that leaves its buffer is part of no operation that `dependent` knows of.
      depth_first strategy(bound, options_.reduces && options_.system.store_delays == 0);
      report_.exhausted = search_bounded(strategy);
      report_.complete = report_.exhausted && !strategy.cut();
      if (report_.first_failure || !report_.exhausted || report_.complete || bound == options_.preemptions) return;
    }
  }

  // True if it came to its end.
  bool search_bounded(depth_first& strategy) {
    do {
      if (report_.schedules == options_.schedules_max) return false;
      ++report_.schedules;
      note(engine_.run(strategy, false));
      if (strategy.redundant()) ++report_.redundant;
      if (strategy.diverged() && !report_.first_failure) {
        report_.first_failure = failure{.message = "not deterministic: a choice had other options than before",
                                        .schedule = {},
                                        .found_by = "depth-first search",
                                        .trace = {}};
      }
      if (report_.first_failure) return false;
    } while (strategy.next());
    return true;
  }

  void search_at_random() {
    const std::uint64_t seed = seed_of_run();
    random_priorities strategy(seed, options_.random_depth);
    found_by_ = "random priorities, LARDER_TEST_SEED=" + std::to_string(seed);
    while (report_.random_schedules < options_.random_schedules && !report_.first_failure) {
      ++report_.random_schedules;
      strategy.begin(report_.steps_most);
      note(engine_.run(strategy, false));
    }
  }

  void note(const outcome& run) {
    report_.steps_most = std::max(report_.steps_most, run.steps);
    if (!run.failed) return;
    const std::string message = run.message;
    const std::string schedule = to_text(run.schedule);
    engine second(factory_, options_.system);
    replay again(from_text(schedule));
    const outcome& repeated = second.run(again, true);
    report_.first_failure = failure{.message = message,
                                    .schedule = schedule,
                                    .found_by = found_by_,
                                    .trace = end_of(repeated.trace),
                                    .reproduced = repeated.failed && !again.diverged() &&
                                                  without_addresses(repeated.message) == without_addresses(message)};
  }

  std::string bound_text() const {
    return report_.preemptions == unbounded ? "any number of" : "at most " + std::to_string(report_.preemptions);
  }

  const scenario_factory& factory_;
  const search_options options_;
  engine engine_;
  std::string found_by_;
  search_report report_;
};

void print(const search_report& report) {
  const std::uint64_t all = report.schedules + report.random_schedules;
  const std::string bound = report.preemptions == unbounded ? "unbounded" : std::to_string(report.preemptions);
  std::printf("[ schedules] %llu in depth (preemptions: %s, %s), %llu at random, at most %u steps, %.0f/s%s\n",
              static_cast<unsigned long long>(report.schedules), bound.c_str(),
              report.complete    ? "complete"
              : report.exhausted ? "exhausted"
                                 : "not exhausted",
              static_cast<unsigned long long>(report.random_schedules), report.steps_most,
              static_cast<double>(all) / std::max(report.seconds, 1e-9),
              report.first_failure
                  ? (": " + report.first_failure->message + ", schedule " + report.first_failure->schedule).c_str()
                  : "");
}

}  // namespace

search_report run_search(const scenario_factory& factory, const search_options& options) {
  return search(factory, options).run();
}

search_report explore(const scenario_factory& factory, const search_options& options) {
  const search_report report = run_search(factory, deepened(options));
  print(report);
  return report;
}

outcome run_schedule(const scenario_factory& factory, const system_settings& system, const std::string& schedule) {
  engine once(factory, system);
  replay given(from_text(schedule));
  return once.run(given, true);
}

testing::AssertionResult has_no_failure(const search_report& report) {
  if (!report.first_failure) return testing::AssertionSuccess();
  const failure& found = *report.first_failure;
  return testing::AssertionFailure() << found.message << "\n  found by " << found.found_by
                                     << (found.reproduced ? "" : "\n  NOT reproduced by a second run")
                                     << "\n  replay with LARDER_SCHEDULE=" << found.schedule << "\n"
                                     << found.trace;
}

testing::AssertionResult has_failure(const search_report& report) {
  if (!report.first_failure) {
    return testing::AssertionFailure() << "it survived " << report.schedules << " schedules in depth and "
                                       << report.random_schedules << " at random";
  }
  if (report.first_failure->reproduced) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "found, but a second run went another way: " << report.first_failure->message
                                     << ", schedule " << report.first_failure->schedule;
}

}  // namespace larder::sched

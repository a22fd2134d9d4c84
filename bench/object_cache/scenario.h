// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace larder::bench {

// What the benchmark asks of a process: `scenario argument iterations`. The argument is a size or a number of threads.
struct request {
  std::string scenario;
  std::size_t argument = 0;
  std::uint64_t iterations = 0;
};

// What it answers: nanoseconds per operation and named figures, or why there are none.
struct answer {
  double ns_per_operation = 0;
  std::vector<std::pair<std::string, double>> figures;
  std::string error;
};

// What is needed of a source at the same time, for those whose size is chosen at their creation.
struct demand {
  std::size_t objects = 0;
  int threads = 1;
};

// Something done again and again with objects of one source. Made once and kept, so that a source is as warm as it
// would be in a program that runs on.
class scenario {
 public:
  scenario() = default;
  virtual ~scenario() = default;
  scenario(const scenario&) = delete;
  scenario& operator=(const scenario&) = delete;

  // An operation is a get and a put. Short runs are no measurement: at least `operations_min` are done.
  virtual double ns_per_operation(std::uint64_t operations) {
    if (!warm_) warm_up();
    run(operations_min);
    const auto start = clock::now();
    const std::uint64_t done = run(std::max(operations, operations_min));
    return ns_since(start) / static_cast<double>(done);
  }
  // Figures beside the time.
  virtual void tell(answer&) {}

 protected:
  using clock = std::chrono::steady_clock;
  static constexpr std::uint64_t operations_min = 10'000;

  static double ns_since(clock::time_point start) {
    return std::chrono::duration<double, std::nano>(clock::now() - start).count();
  }

 private:
  // Does at least so many operations; returns how many.
  virtual std::uint64_t run(std::uint64_t operations) = 0;

  // As long as it may take a source that learns what is asked of it.
  void warm_up() {
    constexpr double warm_up_ns = 100e6;
    const auto start = clock::now();
    do run(operations_min);
    while (ns_since(start) < warm_up_ns);
    warm_ = true;
  }

  bool warm_ = false;
};

// The compiler must take it that somebody uses the object, and what is in it.
inline void use(void* object) { asm volatile("" : : "r"(object) : "memory"); }

// … and that somebody sees the source between two calls of it: else a put and a get that follow each other are made
// into nothing where both are inlined.
inline void look_at_source() { asm volatile("" : : : "memory"); }

}  // namespace larder::bench

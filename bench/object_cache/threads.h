// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <latch>
#include <thread>

#include "base/atomic.h"
#include "bench/object_cache/lifetimes.h"
#include "bench/object_cache/scenario.h"
#include "os/cpu.h"

namespace larder::bench {

// What one thread of many does; `out` are the objects that it holds throughout.
struct put_at_once {
  static constexpr std::size_t out = 1;

  template <typename Source>
  void operator()(Source& source, std::array<void*, out>& objects, std::size_t) const {
    source.put(objects[0]);
    look_at_source();
    use(objects[0] = source.get());
  }
};

struct replace_one_of_many {
  static constexpr std::size_t out = 100;

  template <typename Source>
  void operator()(Source& source, std::array<void*, out>& objects, std::size_t picked) const {
    void*& object = objects[picked];
    source.put(object);
    look_at_source();
    use(object = source.get());
  }
};

// Many threads, for a fixed time: with more threads than CPUs, a number of operations that is over within a time slice
// would be done by one thread after the other. The price is in time of a CPU: time passed, times CPUs at work. Beside
// it, the CPU time that was used: less where threads slept, or where other programs had a part of the CPUs.
template <typename Source, typename Work>
class many_threads : public scenario {
 public:
  explicit many_threads(int threads)
      : threads_(threads), source_(demand{static_cast<std::size_t>(threads) * Work::out, threads + 1}) {}

  double ns_per_operation(std::uint64_t) override {
    if (!warm_) pass(std::chrono::milliseconds(100));
    warm_ = true;
    return pass(std::chrono::milliseconds(50));
  }
  void tell(answer& told) override {
    source_.tell(told);
    told.figures.emplace_back("cpu_ns", cpu_ns_per_operation_);
  }

 private:
  std::uint64_t run(std::uint64_t operations) override { return operations; }

  double pass(std::chrono::nanoseconds time) {
    base::atomic<bool> stop{false};
    base::atomic<std::uint64_t> operations{0};
    std::latch ready(threads_);
    std::latch begun(1);
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_; ++i) {
      threads.emplace_back([&, i] {
        source_.enter();
        const random_order<1024> order(Work::out, static_cast<std::uint32_t>(i));
        std::array<void*, Work::out> objects;
        for (void*& object : objects) object = source_.get();
        ready.count_down();
        begun.wait();
        std::uint64_t done = 0;
        while (!stop.load(base::memory_order_relaxed)) {  // nothing is published by it
          for (const std::uint64_t look = done + between_looks; done < look; ++done) {
            Work{}(source_, objects, order[done]);
          }
        }
        operations += done;
        for (void* object : objects) source_.put(object);
        source_.leave();
      });
    }
    ready.wait();
    // Before they begin: among many threads, this one may not run again for a while.
    const auto start = clock::now();
    const std::clock_t cpu_start = std::clock();
    begun.count_down();
    std::this_thread::sleep_for(time);
    stop = true;
    const double passed_ns = ns_since(start);
    for (std::thread& each : threads) each.join();
    constexpr double tick_ns = 1e9 / CLOCKS_PER_SEC;
    const auto cpu_ticks = static_cast<double>(std::clock() - cpu_start);
    cpu_ns_per_operation_ = cpu_ticks * tick_ns / static_cast<double>(operations.load());
    return passed_ns * std::min(threads_, os::available_cpus()) / static_cast<double>(operations.load());
  }

  static constexpr std::uint64_t between_looks = 64;

  const int threads_;
  bool warm_ = false;
  double cpu_ns_per_operation_ = 0;
  Source source_;
};

}  // namespace larder::bench

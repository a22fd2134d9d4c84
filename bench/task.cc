// SPDX-License-Identifier: Apache-2.0
//
// Claim: a task — spawn, run, join — costs at most 60 ns, on one worker, from a task of it. Also what tasks cost that
// wait for each other, on one worker and on two, and for time. Beside them, in one run, the peers of task_peers.h:
// Boost.Fiber where the build found it (LARDER_BENCH_BOOST_FIBER), and threads. Floor of a yield: a bare switch there
// and back.
//
// A time is that of what the name says, once: a turn of both, a spawn with its join; of spawn_and_join_64 and
// sleep_storm, of so many. Where threads wait for each other it is wall clock, and the CPU time is the process's. A
// tick storm takes as long as it is told to, so its result is the CPU time of a tick.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/runtime.h>

#include "bench/bare_switch.h"
#include "bench/task_peers.h"
#include "os/clock.h"

namespace larder::bench {
namespace {

// One after the other: each join parks the spawner.
template <typename Means>
void spawn_and_join(benchmark::State& state) {
  Means means;
  means.run([&] {
    for (auto _ : state) means.spawn([] {}).join();
  });
}

// A batch at a time: the spawner parks once for many.
template <typename Means>
void spawn_and_join_64(benchmark::State& state) {
  Means means;
  means.run([&] {
    std::array<typename Means::handle, 64> batch;
    for (auto _ : state) {
      for (auto& each : batch) each = means.spawn([] {});
      for (auto& each : batch) each.join();
    }
  });
  state.SetItemsProcessed(state.iterations() * 64);
}

// From a thread: a wake-up of the worker and one of the thread.
void run_from_a_thread(benchmark::State& state) {
  const auto runtime = *runtime::create("bench", {.workers = 1});
  for (auto _ : state) runtime->run([] {});
}

// Two take turns; an iteration is one turn of each.
template <typename Means>
void yield_between_two(benchmark::State& state) {
  Means means;
  means.run([&] {
    bool stop = false;
    auto other = means.spawn([&] {
      while (!stop) Means::yield();
    });
    for (auto _ : state) Means::yield();
    stop = true;
    other.join();
  });
}

template <>
void yield_between_two<bare_switch>(benchmark::State& state) {
  bare_switch floor;
  for (auto _ : state) floor.there_and_back();
}

// Two wait for each other's word; an iteration is one turn of each.
template <typename Means>
void ping_pong(benchmark::State& state) {
  typename Means::turn turn;
  Means means;
  means.run_both(
      [&] {
        for (auto _ : state) turn.pass(0);
        turn.end();
      },
      [&] {
        while (turn.pass(1)) {
        }
      });
}

// The same between threads.
template <typename Means>
void ping_pong_across(benchmark::State& state) {
  ping_pong<Means>(state);
}

template <typename Means>
void lock_a_free_mutex(benchmark::State& state) {
  Means means;
  means.run([&] {
    typename Means::lock guard;
    for (auto _ : state) {
      guard.lock();
      guard.unlock();
    }
  });
}

// So many that are all asleep for a millisecond, each from when it begins.
template <typename Means>
void sleep_storm(benchmark::State& state) {
  Means means;
  means.run([&] {
    std::vector<typename Means::handle> all(static_cast<std::size_t>(state.range(0)));
    for (auto _ : state) {
      for (auto& each : all) {
        each = means.spawn([] { Means::sleep_until(os::now() + std::chrono::milliseconds(1)); });
      }
      for (auto& each : all) each.join();
    }
  });
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

double process_cpu_ns() {
  timespec now;
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Guest cores, whose ticks each start a task (examples/tick_storm.cc); all in one thread.
template <typename Means>
struct ticking {
  Means& means;
  const std::chrono::nanoseconds period;
  const time_point began = os::now();
  std::uint64_t ticks = 0;
  std::uint64_t late = 0;
  std::uint64_t ran = 0;

  template <typename Condition>
  void tick_while(Condition holds) {
    for (time_point due = began + period; holds(); due += period) {
      if (os::now() < due) {
        Means::sleep_until(due);
      } else {
        Means::yield();
      }
      if (os::now() > due + period) ++late;
      ++ticks;
      means.spawn_detached([this] {
        Means::yield();
        ++ran;
      });
    }
  }
};

constexpr std::size_t cores = 8;

template <typename Means>
void tick_storm(benchmark::State& state) {
  Means means;
  means.run([&] {
    ticking<Means> storm{means, std::chrono::nanoseconds(1'000'000'000 / state.range(0))};
    bool stop = false;
    const auto until_stopped = [&stop] { return !stop; };
    std::vector<typename Means::handle> others(cores - 1);
    for (auto& each : others) each = means.spawn([&] { storm.tick_while(until_stopped); });
    const double cpu_before = process_cpu_ns();
    storm.tick_while([&state] { return state.KeepRunning(); });
    const auto ticks = static_cast<double>(storm.ticks);
    state.counters["result_ns_of_CPU_per_tick"] = (process_cpu_ns() - cpu_before) / ticks;
    state.counters["late_percent"] = 100 * static_cast<double>(storm.late) / ticks;
    stop = true;
    for (auto& each : others) each.join();
    while (storm.ran != storm.ticks) Means::yield();
  });
}

void wall_clock(benchmark::internal::Benchmark* each) { each->UseRealTime()->MeasureProcessCPUTime(); }

void many(benchmark::internal::Benchmark* each) {
  each->Arg(1000)->Unit(benchmark::kMicrosecond)->UseRealTime()->MeasureProcessCPUTime();
}

void rates(benchmark::internal::Benchmark* each) { each->ArgName("Hz")->Arg(10'000)->Arg(100'000)->UseRealTime(); }

BENCHMARK(spawn_and_join<larder_one_worker>)->Apply(wall_clock);
BENCHMARK(spawn_and_join<std_threads>)->Apply(wall_clock);
BENCHMARK(spawn_and_join_64<larder_one_worker>)->Apply(wall_clock);
BENCHMARK(spawn_and_join_64<std_threads>)->Apply(wall_clock);
BENCHMARK(yield_between_two<larder_one_worker>);
BENCHMARK(yield_between_two<bare_switch>);
BENCHMARK(ping_pong<larder_one_worker>);
BENCHMARK(ping_pong_across<larder_two_workers>)->Apply(wall_clock);
BENCHMARK(ping_pong_across<std_threads>)->Apply(wall_clock);
BENCHMARK(ping_pong_across<futex_threads>)->Apply(wall_clock);
BENCHMARK(lock_a_free_mutex<larder_one_worker>);
BENCHMARK(lock_a_free_mutex<std_threads>);
BENCHMARK(run_from_a_thread)->Apply(wall_clock);
BENCHMARK(sleep_storm<larder_one_worker>)->Apply(many);
BENCHMARK(sleep_storm<std_threads>)->Apply(many);
BENCHMARK(tick_storm<larder_one_worker>)->Apply(rates);

#ifdef LARDER_BENCH_BOOST_FIBER
BENCHMARK(spawn_and_join<boost_fibers>)->Apply(wall_clock);
BENCHMARK(spawn_and_join<boost_fibers_pooled>)->Apply(wall_clock);
BENCHMARK(spawn_and_join_64<boost_fibers>)->Apply(wall_clock);
BENCHMARK(spawn_and_join_64<boost_fibers_pooled>)->Apply(wall_clock);
BENCHMARK(yield_between_two<boost_fibers>);
BENCHMARK(ping_pong<boost_fibers>);
BENCHMARK(lock_a_free_mutex<boost_fibers>);
BENCHMARK(sleep_storm<boost_fibers>)->Apply(many);
BENCHMARK(sleep_storm<boost_fibers_pooled>)->Apply(many);
BENCHMARK(tick_storm<boost_fibers>)->Apply(rates);
BENCHMARK(tick_storm<boost_fibers_pooled>)->Apply(rates);
#endif

}  // namespace
}  // namespace larder::bench

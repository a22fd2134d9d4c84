// SPDX-License-Identifier: Apache-2.0
//
// Claim: a task — spawn, run, join — costs at most 60 ns, on one worker, from a task of it.
#include <array>
#include <memory>

#include <benchmark/benchmark.h>

#include <larder/runtime.h>
#include <larder/sync.h>

namespace {

std::unique_ptr<larder::runtime> one_worker() { return *larder::runtime::create("bench", {.workers = 1}); }

// One after the other: each join parks the spawner.
void spawn_and_join(benchmark::State& state) {
  const auto runtime = one_worker();
  runtime->run([&] {
    for (auto _ : state) runtime->spawn([] {}).join();
  });
}
BENCHMARK(spawn_and_join);

// A batch at a time: the spawner parks once for many.
void spawn_and_join_64(benchmark::State& state) {
  const auto runtime = one_worker();
  runtime->run([&] {
    std::array<larder::task, 64> batch;
    for (auto _ : state) {
      for (larder::task& each : batch) each = runtime->spawn([] {});
      for (larder::task& each : batch) each.join();
    }
  });
  state.SetItemsProcessed(state.iterations() * 64);
}
BENCHMARK(spawn_and_join_64);

// From a thread: a wake-up of the worker and one of the thread.
void run_from_a_thread(benchmark::State& state) {
  const auto runtime = one_worker();
  for (auto _ : state) runtime->run([] {});
}
BENCHMARK(run_from_a_thread)->UseRealTime();

// Two tasks of one worker take turns; an iteration is one turn of each.
void yield_between_two_tasks(benchmark::State& state) {
  const auto runtime = one_worker();
  runtime->run([&] {
    bool stop = false;
    larder::task other = runtime->spawn([&] {
      while (!stop) larder::this_task::yield();
    });
    for (auto _ : state) larder::this_task::yield();
    stop = true;
    other.join();
  });
}
BENCHMARK(yield_between_two_tasks);

void lock_a_free_mutex(benchmark::State& state) {
  const auto runtime = one_worker();
  runtime->run([&] {
    larder::mutex guard;
    for (auto _ : state) {
      guard.lock();
      guard.unlock();
    }
  });
}
BENCHMARK(lock_a_free_mutex);

}  // namespace

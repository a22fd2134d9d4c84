// SPDX-License-Identifier: Apache-2.0
//
// Claims: inserting an object into a handle_table and erasing it costs at most 4 ns, finding it at most 1.5 ns. Beside
// it, in one run: the peers of handle_table_peers.h and, for insert and erase, the floors of floor.h.
//
// Time is wall clock per item: a pair of insert and erase, or a find. With n threads it is that of all items together,
// so twice the throughput is half the time. `erase_elsewhere<no_table>` is the cost of passing names alone, to be
// subtracted from the others of its kind; their CPU time is both threads', with their waiting. Finds are independent of
// each other and overlap. For figures to compare, let the runs take turns:
//   tools/bench_report handle_table --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/batch_ring.h"
#include "bench/floor.h"
#include "bench/handle_table_peers.h"

namespace larder::bench {
namespace {

int target = 0;

// A broken table is no result.
void expect(benchmark::State& state, bool all_found) {
  if (!all_found) state.SkipWithError("a name was not found");
}

template <typename Table>
void insert_then_erase(benchmark::State& state) {
  Table table;
  bool all_found = true;
  for (auto _ : state) {
    const auto made = table.insert(&target);
    benchmark::DoNotOptimize(made);
    all_found &= table.erase(made);
  }
  state.SetItemsProcessed(state.iterations());
  expect(state, all_found);
}

// Erases one of many that are out, and inserts another.
template <typename Table>
void replace_at_random(benchmark::State& state) {
  Table table;
  std::vector<typename Table::name> out(static_cast<std::size_t>(state.range(0)));
  for (auto& each : out) each = table.insert(&target);
  std::vector<std::uint32_t> order(1 << 16);
  std::mt19937 random(1);
  for (std::uint32_t& slot : order) slot = static_cast<std::uint32_t>(random() % out.size());
  bool all_found = true;
  std::size_t next = 0;
  for (auto _ : state) {
    auto& each = out[order[next++ % order.size()]];
    all_found &= table.erase(each);
    each = table.insert(&target);
    benchmark::DoNotOptimize(each);
  }
  for (const auto each : out) all_found &= table.erase(each);
  state.SetItemsProcessed(state.iterations());
  expect(state, all_found);
}

// Names and takes nothing: what remains of erase_elsewhere is the ring.
struct no_table {
  using name = std::uint32_t;
  name insert(int*) { return 1; }
  bool erase(name which) {
    benchmark::DoNotOptimize(which);
    return true;
  }
};

// This thread inserts, another erases what it is sent.
template <typename Table>
void erase_elsewhere(benchmark::State& state) {
  Table table;
  using ring_of_names = batch_ring<typename Table::name>;
  const auto ring = std::make_unique<ring_of_names>();
  bool all_found = true;
  std::thread eraser([&] {
    while (const auto* batch = ring->begin_receive()) {
      for (const auto each : *batch) all_found &= table.erase(each);
      ring->end_receive();
    }
  });
  while (state.KeepRunningBatch(ring_of_names::batch_size)) {
    for (auto& each : ring->begin_send()) each = table.insert(&target);
    ring->end_send();
  }
  ring->close();
  eraser.join();
  state.SetItemsProcessed(state.iterations());
  expect(state, all_found);
}

// What the threads of a run share.
template <typename Table>
std::unique_ptr<Table> shared;

// Each thread replaces the oldest of the few it has out.
template <typename Table>
void threads_insert_and_erase(benchmark::State& state) {
  Table& table = *shared<Table>;
  std::array<typename Table::name, 8> out;
  for (auto& each : out) each = table.insert(&target);
  bool all_found = true;
  std::size_t next = 0;
  for (auto _ : state) {
    auto& oldest = out[next++ % out.size()];
    all_found &= table.erase(oldest);
    oldest = table.insert(&target);
    benchmark::DoNotOptimize(oldest);
  }
  for (const auto each : out) all_found &= table.erase(each);
  state.SetItemsProcessed(state.iterations());
  expect(state, all_found);
}

enum order_of_finds : std::int64_t { sequential, random_order };

template <typename Table>
void find_among(benchmark::State& state) {
  Table table;
  const auto count = static_cast<std::size_t>(state.range(0));
  std::vector<typename Table::name> names(count);
  for (auto& each : names) each = table.insert(&target);
  if (state.range(1) == random_order) std::shuffle(names.begin(), names.end(), std::mt19937(1));
  bool all_found = true;
  while (state.KeepRunningBatch(state.range(0))) {
    for (const auto each : names) all_found &= table.find(each) == &target;
  }
  state.SetItemsProcessed(state.iterations());
  expect(state, all_found);
}

void among_many(benchmark::internal::Benchmark* each) { each->Arg(10'000); }

void two_threads(benchmark::internal::Benchmark* each) { each->UseRealTime()->MeasureProcessCPUTime(); }

template <typename Table>
void all_threads(benchmark::internal::Benchmark* each) {
  each->Setup([](const benchmark::State&) { shared<Table> = std::make_unique<Table>(); });
  each->Teardown([](const benchmark::State&) { shared<Table>.reset(); });
  each->Threads(2)->Threads(16)->UseRealTime();
}

void finds(benchmark::internal::Benchmark* each) {
  each->ArgNames({"", "random"})->ArgsProduct({{100, 60'000}, {sequential, random_order}});
}

BENCHMARK(insert_then_erase<larder_table>);
BENCHMARK(insert_then_erase<locked_vector>);
BENCHMARK(insert_then_erase<locked_vector_with_generations>);
BENCHMARK(insert_then_erase<ticket_locked_list>);
BENCHMARK(insert_then_erase<rseq_array>);
BENCHMARK(insert_then_erase<thread_stack>);

BENCHMARK(replace_at_random<larder_table>)->Apply(among_many);
BENCHMARK(replace_at_random<locked_vector>)->Apply(among_many);
BENCHMARK(replace_at_random<locked_vector_with_generations>)->Apply(among_many);
BENCHMARK(replace_at_random<ticket_locked_list>)->Apply(among_many);
BENCHMARK(replace_at_random<rseq_array>)->Apply(among_many);
BENCHMARK(replace_at_random<thread_stack>)->Apply(among_many);

BENCHMARK(erase_elsewhere<larder_table>)->Apply(two_threads);
BENCHMARK(erase_elsewhere<locked_vector>)->Apply(two_threads);
BENCHMARK(erase_elsewhere<locked_vector_with_generations>)->Apply(two_threads);
BENCHMARK(erase_elsewhere<ticket_locked_list>)->Apply(two_threads);
BENCHMARK(erase_elsewhere<no_table>)->Apply(two_threads);

BENCHMARK(threads_insert_and_erase<larder_table>)->Apply(all_threads<larder_table>);
BENCHMARK(threads_insert_and_erase<locked_vector>)->Apply(all_threads<locked_vector>);
BENCHMARK(threads_insert_and_erase<locked_vector_with_generations>)->Apply(all_threads<locked_vector_with_generations>);
BENCHMARK(threads_insert_and_erase<ticket_locked_list>)->Apply(all_threads<ticket_locked_list>);
BENCHMARK(threads_insert_and_erase<rseq_array>)->Apply(all_threads<rseq_array>);
BENCHMARK(threads_insert_and_erase<thread_stack>)->Apply(all_threads<thread_stack>);

BENCHMARK(find_among<larder_table>)->Apply(finds);
BENCHMARK(find_among<locked_vector>)->Apply(finds);
BENCHMARK(find_among<locked_vector_with_generations>)->Apply(finds);
BENCHMARK(find_among<ticket_locked_list>)->Apply(finds);

#if LARDER_BENCH_BOOST_LOCKFREE
BENCHMARK(insert_then_erase<boost_free_list>);
BENCHMARK(replace_at_random<boost_free_list>)->Apply(among_many);
BENCHMARK(erase_elsewhere<boost_free_list>)->Apply(two_threads);
BENCHMARK(threads_insert_and_erase<boost_free_list>)->Apply(all_threads<boost_free_list>);
BENCHMARK(find_among<boost_free_list>)->Apply(finds);
#endif

}  // namespace
}  // namespace larder::bench

// SPDX-License-Identifier: Apache-2.0
//
// Pages in memory: 64 bytes of one of 16,384 (or of the first 256), by a pin and by a validated read, beside pread and
// a mapping of the same file, a mutex with a hash map and a list, and a bare array. ns for one read, by 1 and by 2
// threads.
//
// Pages beyond memory: a file of which a tenth fits, 4 KiB read at random, 30 % of them written and all made durable
// after a thousand, written from end to end and made durable, and read at random by 32 at once (tasks, and threads);
// beside the kernel's page cache under the same limit, and the device itself. us for one 4 KiB, or for one MiB of those
// in order. Each runs in a process of its own in a memory control group where one can be set (page_cache/limited.h).
#include <benchmark/benchmark.h>

#include "bench/page_cache/limited.h"
#include "bench/page_cache/reads.h"

namespace larder::bench {
namespace {

// Which of the pages: any; any by Zipf's law; of the first 256, so that the processor's caches hold all it needs.
enum pattern : std::int64_t { uniform, zipf, few };
constexpr std::uint64_t few_pages = 256;

page_sequence pages_for(const benchmark::State& state, std::uint64_t pages) {
  const auto seed = static_cast<std::uint64_t>(state.thread_index()) + 1;
  if (state.range(0) == zipf) return page_sequence::zipf(pages, seed);
  return page_sequence::uniform(state.range(0) == few ? few_pages : pages, seed);
}

template <typename Way>
void resident_read_64(benchmark::State& state) {
  Way way(warm_file::instance());
  page_sequence pages = pages_for(state, warm_file::pages);
  std::array<std::byte, read_length> into{};
  for (auto _ : state) {
    way.read(pages.next(), into.data());
    benchmark::DoNotOptimize(into);
  }
}

template <typename Way>
void beyond_memory(benchmark::State& state) {
  const auto chosen = static_cast<load>(state.range(0));
  limited_run run(Way::work, chosen);
  if (!run.usable()) {
    state.SkipWithError(run.reason());
    return;
  }
  outcome all;
  for (auto _ : state) {
    const outcome came = run.step();
    if (came.operations == 0) {
      state.SkipWithError("the process under the limit died");
      return;
    }
    state.SetIterationTime(came.seconds);
    all.operations += came.operations;
    all.seconds += came.seconds;
  }
  state.counters["result_us"] = all.seconds * 1e6 / static_cast<double>(all.operations);
  state.SetLabel(run.limited() ? "in a control group"
                               : "no control group can be set: the kernel's cache is not limited");
}

#define RESIDENT(way)                       \
  BENCHMARK_TEMPLATE(resident_read_64, way) \
      ->ArgName("pattern")                  \
      ->DenseRange(uniform, few)            \
      ->ThreadRange(1, 2)                   \
      ->UseRealTime()
RESIDENT(pinned);
RESIDENT(validated);
RESIDENT(by_pread);
RESIDENT(mapped);
RESIDENT(mutex_lru);
RESIDENT(array);

#define BEYOND(way)                      \
  BENCHMARK_TEMPLATE(beyond_memory, way) \
      ->ArgName("load")                  \
      ->DenseRange(0, 4)                 \
      ->UseManualTime()                  \
      ->Unit(benchmark::kMicrosecond)
BEYOND(larder_direct);
BEYOND(larder_buffered);
BEYOND(kernel_cache);
BEYOND(kernel_mapping);
BEYOND(device);

}  // namespace
}  // namespace larder::bench

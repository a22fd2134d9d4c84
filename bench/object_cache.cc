// SPDX-License-Identifier: Apache-2.0
//
// Claims: a constructed object from an object_cache costs no more than raw memory from the best malloc, in each of the
// ways objects come and go; it takes little more memory than itself; and memory that is not needed goes back.
//
// The sources. `larder` hands out built objects. glibc's malloc, jemalloc, mimalloc, gperftools' tcmalloc and oneTBB's
// give raw memory: the object is not built there, which favours them, but where the constructor is the subject.
// `boost_pool` is a boost::pool behind the mutex that makes it fit for threads. `dpdk_mempool` is a pool of a fixed
// number of objects with a cache for each registered thread. The floors are what no source can be faster than
// (bench/floor.h), and `ring_alone` what passing an object to another thread costs. (libumem, the object cache of
// Solaris, is in no package of Debian 12.)
//
// The measure. Each source runs the same templates (bench/object_cache/) in a process of its own, this program's with
// the library preloaded, and refuses if malloc is another's. This process only asks, and the repetitions of all
// sources take turns in a random order, so that what else the machine does meets all alike. A time is that of a get and
// a put, per CPU at work; of memory_per_object and resident_after_peak, of getting an object and writing it for the
// first time. Nothing is bound to a CPU. The figures that count are medians, and their ratios in one run. That takes
// some five minutes; for a quick look:
//   tools/bench_report object_cache --benchmark_repetitions=1 --benchmark_min_time=0.01 --benchmark_filter=/64
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/object_cache/child.h"
#include "bench/object_cache/occupancy.h"
#include "bench/object_cache/peer.h"

namespace larder::bench {
namespace {

enum role : unsigned { object_source = 1, floor_of_gets = 2, floor_of_passing = 4 };

struct peer {
  peer_kind kind;
  role plays;
  std::unique_ptr<peer_process> process = nullptr;  // for all that is asked more than once
};

// The subject first: the reports give ratios to it.
std::vector<peer> all_peers() {
  std::vector<peer> made;
  made.push_back({{"larder", {}, {}}, object_source});
  made.push_back({{"glibc", {"libc.so.6"}, {}}, object_source});
  made.push_back({{"jemalloc", {"libjemalloc.so.2"}, {}}, object_source});
  made.push_back({{"mimalloc", {"libmimalloc.so.2", "libmimalloc.so.2.0"}, {}}, object_source});
  made.push_back({{"tcmalloc", {"libtcmalloc_minimal.so.4", "libtcmalloc.so.4"}, {}}, object_source});
  made.push_back({{"tbb", {"libtbbmalloc_proxy.so.2"}, {}}, object_source});
  made.push_back({{"boost_pool", {}, {}}, object_source});
  made.push_back({{"dpdk_mempool", {}, "peers/object_cache_dpdk"}, object_source});
  made.push_back({{"rseq_floor", {}, {}}, floor_of_gets});
  made.push_back({{"thread_floor", {}, {}}, floor_of_gets});
  made.push_back({{"ring_alone", {}, {}}, floor_of_passing});
  return made;
}

struct plan {
  std::string scenario;
  std::vector<std::int64_t> arguments;
  unsigned roles;
};

const std::vector<plan> timed = {
    {"same_thread", {64, 512, 4096}, object_source | floor_of_gets},
    {"out_then_in", {64, 512, 4096}, object_source | floor_of_gets},
    {"random_replacement", {64, 512, 4096}, object_source | floor_of_gets},
    {"random_replacement_used", {64, 4096}, object_source | floor_of_gets},
    {"thread_to_thread", {64}, object_source | floor_of_passing},
    {"costly_constructor", {64}, object_source},
};
// The argument is the number of threads. Each process measures for a time of its own choice.
const std::vector<plan> of_threads = {
    {"threads_same_thread", {2, 64}, object_source | floor_of_gets},
    {"threads_random_replacement", {2, 64}, object_source | floor_of_gets},
};
// Once, in a process that has done nothing else.
const std::vector<plan> of_memory = {
    {"memory_per_object", {16, 64, 256, 1024, 4096}, object_source},
    {"resident_after_peak", {64}, object_source},
};

void show(benchmark::State& state, const answer& got) {
  if (!got.error.empty()) {
    state.SkipWithError(got.error.c_str());
    return;
  }
  const auto iterations = state.max_iterations;
  while (state.KeepRunningBatch(iterations)) {
    state.SetIterationTime(got.ns_per_operation * 1e-9 * static_cast<double>(iterations));
  }
  for (const auto& [name, value] : got.figures) state.counters[name] = value;
}

request asked_by(const benchmark::State& state, const std::string& scenario) {
  return {scenario, static_cast<std::size_t>(state.range(0)), static_cast<std::uint64_t>(state.max_iterations)};
}

void register_all(std::vector<peer>& peers, const std::vector<plan>& plans,
                  const std::function<void(benchmark::internal::Benchmark*)>& refine, bool each_alone) {
  for (const plan& each : plans) {
    for (peer& asked : peers) {
      if ((each.roles & asked.plays) == 0 || asked.process == nullptr) continue;
      const auto run = [&asked, &each, each_alone](benchmark::State& state) {
        const request what = asked_by(state, each.scenario);
        show(state, each_alone ? peer_process(asked.kind).ask(what) : asked.process->ask(what));
      };
      for (const std::int64_t argument : each.arguments) {
        refine(benchmark::RegisterBenchmark((each.scenario + '<' + asked.kind.name + '>').c_str(), run)
                   ->Arg(argument)
                   ->UseManualTime());
      }
    }
  }
}

// Starts the peers; those that are not to be had are named in every report.
void start(std::vector<peer>& peers) {
  for (peer& each : peers) {
    each.process = std::make_unique<peer_process>(each.kind);
    const std::string& problem = each.process->problem();
    benchmark::AddCustomContext("source " + each.kind.name,
                                problem.empty() ? each.process->introduction() : "skipped: " + problem);
    if (!problem.empty()) each.process.reset();
  }
}

int run_all(int count, char** words) {
  std::vector<peer> peers = all_peers();
  start(peers);
  register_all(
      peers, timed, [](auto*) {}, false);
  register_all(
      peers, of_threads, [](auto* each) { each->Iterations(1); }, false);
  register_all(
      peers, of_memory, [](auto* each) { each->Iterations(1)->Repetitions(1); }, true);
  register_occupancy();
  // Unless told otherwise: what follows overrides.
  std::vector<std::string> flags = {words[0], "--benchmark_repetitions=9",
                                    "--benchmark_enable_random_interleaving=true", "--benchmark_min_time=0.05"};
  flags.insert(flags.end(), words + 1, words + count);
  std::vector<char*> pointers;
  for (std::string& each : flags) pointers.push_back(each.data());
  int pointer_count = static_cast<int>(pointers.size());
  benchmark::Initialize(&pointer_count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(pointer_count, pointers.data())) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace larder::bench

int main(int count, char** words) {
  constexpr std::string_view peer_word = "--peer=";
  constexpr std::string_view malloc_word = "--malloc-of=";
  if (count == 3 && std::string_view(words[1]).starts_with(peer_word)) {
    return larder::bench::serve_peer(words[1] + peer_word.size(), words[2] + malloc_word.size());
  }
  return larder::bench::run_all(count, words);
}

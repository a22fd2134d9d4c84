// SPDX-License-Identifier: Apache-2.0
//
// Claims: a coroutine — create, enter, yield, enter, end — costs at most 15 ns on a cached stack, a yield there and
// back at most 3 ns. Beside it: Boost.Context's fiber on its pooled stacks, where the build found that library
// (LARDER_BENCH_BOOST_CONTEXT).
#include <cstddef>
#include <utility>

#include <benchmark/benchmark.h>

#include <larder/coroutine.h>

#ifdef LARDER_BENCH_BOOST_CONTEXT
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#endif

namespace {

void larder_whole_life(benchmark::State& state) {
  const larder::coroutine::options chosen{.stack_size = {static_cast<std::uint64_t>(state.range(0))}};
  for (auto _ : state) {
    larder::coroutine one([] { larder::coroutine::yield(); }, chosen);
    one.resume();
    one.resume();
  }
}
BENCHMARK(larder_whole_life)->Arg(16 << 10)->Arg(64 << 10);

void larder_yield_there_and_back(benchmark::State& state) {
  bool stop = false;
  larder::coroutine one([&] {
    while (!stop) larder::coroutine::yield();
  });
  for (auto _ : state) one.resume();
  stop = true;
  one.resume();
}
BENCHMARK(larder_yield_there_and_back);

#ifdef LARDER_BENCH_BOOST_CONTEXT

void boost_whole_life(benchmark::State& state) {
  boost::context::pooled_fixedsize_stack stacks(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    boost::context::fiber one(std::allocator_arg, stacks,
                              [](boost::context::fiber&& resumer) { return std::move(resumer).resume(); });
    one = std::move(one).resume();
    one = std::move(one).resume();
    benchmark::DoNotOptimize(one);
  }
}
BENCHMARK(boost_whole_life)->Arg(16 << 10)->Arg(64 << 10);

void boost_yield_there_and_back(benchmark::State& state) {
  bool stop = false;
  boost::context::fiber one([&](boost::context::fiber&& resumer) {
    while (!stop) resumer = std::move(resumer).resume();
    return std::move(resumer);
  });
  for (auto _ : state) one = std::move(one).resume();
  stop = true;
  one = std::move(one).resume();
}
BENCHMARK(boost_yield_there_and_back);

#endif

}  // namespace

// SPDX-License-Identifier: Apache-2.0
//
// Claims: a coroutine — create, enter, yield, enter, end — and a yield there and back cost nanoseconds on cached,
// guarded stacks, whichever thread ends it; a C++20 coroutine's frame from a cache is cheaper than from malloc. Beside
// them: Boost.Context's fiber on its pooled (unguarded) and its protected stacks, where the build found that library
// (LARDER_BENCH_BOOST_CONTEXT); C++20 coroutines on malloc; a thread. Floor: a bare switch there and back.
#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/coroutine.h>
#include <larder/pooled_frame.h>

#include "bench/batch_ring.h"
#include "coro/context.h"

#ifdef LARDER_BENCH_BOOST_CONTEXT
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
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

void larder_nested(benchmark::State& state) {
  for (auto _ : state) {
    larder::coroutine outer([] {
      larder::coroutine inner([] { larder::coroutine::yield(); });
      inner.resume();
      inner.resume();
    });
    outer.resume();
  }
}
BENCHMARK(larder_nested);

// Created, entered and suspended on this thread; entered again and ended on another.
void larder_ended_on_another_thread(benchmark::State& state) {
  using slot = std::optional<larder::coroutine>;
  using ring = larder::bench::batch_ring<slot*>;
  constexpr std::size_t slots = 32 * ring::batch_size;  // more than are on their way
  ring passed;
  std::vector<slot> live(slots);
  std::thread ends([&passed] {
    while (const ring::batch* batch = passed.begin_receive()) {
      for (slot* one : *batch) {
        (*one)->resume();
        one->reset();
      }
      passed.end_receive();
    }
  });
  std::size_t next = 0;
  while (state.KeepRunningBatch(ring::batch_size)) {
    ring::batch& batch = passed.begin_send();
    for (slot*& one : batch) {
      one = &live[next++ % slots];
      one->emplace([] { larder::coroutine::yield(); });
      (*one)->resume();
    }
    passed.end_send();
  }
  passed.close();
  ends.join();
}
BENCHMARK(larder_ended_on_another_thread)->UseRealTime();

// Floor: nothing but the switch, on a stack that is there.
void bare_switch_there_and_back(benchmark::State& state) {
  struct pair {
    larder::coro::context inside;
    larder::coro::context outside;
  } contexts;
  constexpr std::size_t stack_size = 64 << 10;
  auto* stack = static_cast<std::byte*>(std::aligned_alloc(16, stack_size));
  contexts.inside = larder::coro::make_context(
      stack + stack_size,
      [](void* both) {
        auto& mine = *static_cast<pair*>(both);
        for (;;) larder::coro::switch_context(mine.inside, mine.outside);
      },
      &contexts);
  for (auto _ : state) larder::coro::switch_context(contexts.outside, contexts.inside);
  std::free(stack);
}
BENCHMARK(bare_switch_there_and_back);

void thread_whole_life(benchmark::State& state) {
  for (auto _ : state) std::thread([] {}).join();
}
BENCHMARK(thread_whole_life);

// -- C++20 coroutines

struct on_malloc {};

template <typename Frame>
struct stackless {
  struct promise_type : Frame {
    stackless get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const {}
    void unhandled_exception() const { std::abort(); }
  };
  std::coroutine_handle<promise_type> handle;
};

// Never inlined, so that its frame stays on the heap.
template <typename Frame>
[[gnu::noinline]] stackless<Frame> yield_once(int& count) {
  ++count;
  co_await std::suspend_always();
  ++count;
}

template <typename Frame>
void stackless_whole_life(benchmark::State& state) {
  int count = 0;
  for (auto _ : state) {
    const stackless<Frame> one = yield_once<Frame>(count);
    one.handle.resume();
    one.handle.resume();
    one.handle.destroy();
  }
  benchmark::DoNotOptimize(count);
}
BENCHMARK(stackless_whole_life<larder::pooled_frame>);
BENCHMARK(stackless_whole_life<on_malloc>);

#ifdef LARDER_BENCH_BOOST_CONTEXT

template <typename Stacks>
void boost_whole_life(benchmark::State& state) {
  Stacks stacks(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    boost::context::fiber one(std::allocator_arg, stacks,
                              [](boost::context::fiber&& resumer) { return std::move(resumer).resume(); });
    one = std::move(one).resume();
    one = std::move(one).resume();
    benchmark::DoNotOptimize(one);
  }
}
BENCHMARK(boost_whole_life<boost::context::pooled_fixedsize_stack>)->Arg(16 << 10)->Arg(64 << 10);
BENCHMARK(boost_whole_life<boost::context::protected_fixedsize_stack>)->Arg(64 << 10);

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

// SPDX-License-Identifier: Apache-2.0
//
// Claims: a coroutine — create, enter, yield, enter, end — and a yield there and back cost nanoseconds on cached,
// guarded stacks, whichever thread ends it; a C++20 coroutine's frame from a cache is cheaper than from malloc. Beside
// them, where the build found these libraries: Boost.Context's fiber (LARDER_BENCH_BOOST_CONTEXT) on its pooled
// (unguarded) and its protected stacks; Boost.Fiber's (LARDER_BENCH_BOOST_FIBER), whose enters are a launch, a yield
// and a join through its scheduler; C++20 coroutines on malloc; a thread, which is entered once. Floor: a bare switch
// there and back.
//
// The argument is the size of the stack. `qemu_perf_cost` is what QEMU's tests/unit/test-coroutine.c reports under
// /perf/cost: a whole life, 40,000,000 times. (QEMU's stacks are of 1 MiB; its pool is in no library.)
#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/coroutine.h>
#include <larder/pooled_frame.h>

#include "bench/bare_switch.h"
#include "bench/batch_ring.h"

#ifdef LARDER_BENCH_BOOST_CONTEXT
#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#endif
#ifdef LARDER_BENCH_BOOST_FIBER
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/operations.hpp>
#include <boost/fiber/pooled_fixedsize_stack.hpp>
#endif

namespace larder::bench {
namespace {

// -- means: each has a whole life — create, enter, yield, enter, end — and a yield there and back
//
// A life is inlined by force: a return that follows a switch costs some twenty cycles, and this one would be the
// benchmark's own.

class larder_coroutine {
 public:
  explicit larder_coroutine(std::size_t stack_size) : chosen_{.stack_size = bytes{stack_size}} {}
  [[gnu::always_inline]] void live() const {
    coroutine one([] { coroutine::yield(); }, chosen_);
    one.resume();
    one.resume();
  }
  static void yield_while(benchmark::State& state) {
    bool stop = false;
    coroutine one([&] {
      while (!stop) coroutine::yield();
    });
    for (auto _ : state) one.resume();
    stop = true;
    one.resume();
  }

 private:
  const coroutine::options chosen_;
};

struct std_thread {
  explicit std_thread(std::size_t) {}
  static void live() {
    std::thread([] {}).join();
  }
};

#ifdef LARDER_BENCH_BOOST_CONTEXT

template <typename Stacks>
class boost_context_on {
 public:
  using fiber = boost::context::fiber;

  explicit boost_context_on(std::size_t stack_size) : stacks_(stack_size) {}
  [[gnu::always_inline]] void live() {
    fiber one(std::allocator_arg, stacks_, [](fiber&& resumer) { return std::move(resumer).resume(); });
    one = std::move(one).resume();
    one = std::move(one).resume();
    benchmark::DoNotOptimize(one);
  }
  static void yield_while(benchmark::State& state) {
    bool stop = false;
    fiber one([&](fiber&& resumer) {
      while (!stop) resumer = std::move(resumer).resume();
      return std::move(resumer);
    });
    for (auto _ : state) one = std::move(one).resume();
    stop = true;
    one = std::move(one).resume();
  }

 private:
  Stacks stacks_;
};
using boost_context_pooled = boost_context_on<boost::context::pooled_fixedsize_stack>;
using boost_context_protected = boost_context_on<boost::context::protected_fixedsize_stack>;

#endif

#ifdef LARDER_BENCH_BOOST_FIBER

class boost_fiber_pooled {
 public:
  explicit boost_fiber_pooled(std::size_t stack_size) : stacks_(stack_size) {}
  [[gnu::always_inline]] void live() {
    boost::fibers::fiber(boost::fibers::launch::dispatch, std::allocator_arg, stacks_, boost::this_fiber::yield).join();
  }
  static void yield_while(benchmark::State& state) {
    bool stop = false;
    boost::fibers::fiber one([&] {
      while (!stop) boost::this_fiber::yield();
    });
    for (auto _ : state) boost::this_fiber::yield();
    stop = true;
    one.join();
  }

 private:
  boost::fibers::pooled_fixedsize_stack stacks_;
};

#endif

// -- scenarios

template <typename Means>
void whole_life(benchmark::State& state) {
  Means means(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) means.live();
}

template <typename Means>
void qemu_perf_cost(benchmark::State& state) {
  whole_life<Means>(state);
  state.SetItemsProcessed(state.iterations());
}

template <typename Means>
void yield_there_and_back(benchmark::State& state) {
  Means::yield_while(state);
}

template <>
void yield_there_and_back<bare_switch>(benchmark::State& state) {
  bare_switch floor;
  for (auto _ : state) floor.there_and_back();
}

void larder_nested(benchmark::State& state) {
  for (auto _ : state) {
    coroutine outer([] {
      coroutine inner([] { coroutine::yield(); });
      inner.resume();
      inner.resume();
    });
    outer.resume();
  }
}

// Created, entered and suspended on this thread; entered again and ended on another.
void larder_ended_on_another_thread(benchmark::State& state) {
  using slot = std::optional<coroutine>;
  using ring = batch_ring<slot*>;
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
      one->emplace([] { coroutine::yield(); });
      (*one)->resume();
    }
    passed.end_send();
  }
  passed.close();
  ends.join();
}

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

// -- all of it, the subject of each first

void sizes(benchmark::internal::Benchmark* each) { each->Arg(16 << 10)->Arg(64 << 10); }
void one_size(benchmark::internal::Benchmark* each) { each->Arg(64 << 10); }
void as_qemu(benchmark::internal::Benchmark* each) { each->Arg(64 << 10)->Arg(1 << 20)->Iterations(40'000'000); }

BENCHMARK(whole_life<larder_coroutine>)->Apply(sizes);
BENCHMARK(yield_there_and_back<larder_coroutine>);
BENCHMARK(qemu_perf_cost<larder_coroutine>)->Apply(as_qemu);
BENCHMARK(larder_nested);
BENCHMARK(larder_ended_on_another_thread)->UseRealTime();

#ifdef LARDER_BENCH_BOOST_CONTEXT
BENCHMARK(whole_life<boost_context_pooled>)->Apply(sizes);
BENCHMARK(whole_life<boost_context_protected>)->Apply(one_size);
BENCHMARK(yield_there_and_back<boost_context_pooled>);
BENCHMARK(qemu_perf_cost<boost_context_pooled>)->Apply(as_qemu);
#endif
#ifdef LARDER_BENCH_BOOST_FIBER
BENCHMARK(whole_life<boost_fiber_pooled>)->Apply(sizes);
BENCHMARK(yield_there_and_back<boost_fiber_pooled>);
#endif

BENCHMARK(whole_life<std_thread>)->Apply(one_size);
BENCHMARK(yield_there_and_back<bare_switch>);

BENCHMARK(stackless_whole_life<pooled_frame>);
BENCHMARK(stackless_whole_life<on_malloc>);

}  // namespace
}  // namespace larder::bench

// SPDX-License-Identifier: Apache-2.0
//
// What a limit costs. A charge and its release, in one budget and at the bottom of a tree of three, by 1 and 2 threads,
// beside a mutex with a number and a bare atomic one. And the queue: a thousand wait, the first is given memory, uses
// it and releases it, and so on to the last; ns from each release to the moment when the next waiter runs, beside a
// mutex with a condition. `out_of_order` counts those who came before somebody who had waited longer.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/memory_budget.h>
#include <larder/runtime.h>

namespace larder::bench {
namespace {

constexpr bytes amount{4096};

struct one_budget {
  memory_budget budget{"bench", {.limit = bytes{1U << 30}}};
  bool take() { return budget.try_charge(amount); }
  void give() { budget.release(amount); }
};

struct tree_of_three {
  memory_budget root{"root", {.limit = bytes{1U << 30}}};
  memory_budget branch{"branch", {.limit = bytes{1U << 30}}, &root};
  memory_budget leaf{"leaf", {.limit = bytes{1U << 30}}, &branch};
  bool take() { return leaf.try_charge(amount); }
  void give() { leaf.release(amount); }
};

struct locked_number {
  std::mutex guard;
  std::uint64_t used = 0;
  bool take() {
    const std::lock_guard<std::mutex> locked(guard);
    if (used + amount.count > 1U << 30) return false;
    used += amount.count;
    return true;
  }
  void give() {
    const std::lock_guard<std::mutex> locked(guard);
    used -= amount.count;
  }
};

struct bare_number {
  std::atomic<std::uint64_t> used{0};
  bool take() { return used.fetch_add(amount.count) < 1U << 30; }
  void give() { used -= amount.count; }
};

template <typename Limit>
void charge_and_release(benchmark::State& state) {
  static Limit limit;
  for (auto _ : state) {
    if (!limit.take()) std::abort();
    limit.give();
  }
}
BENCHMARK_TEMPLATE(charge_and_release, one_budget)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_TEMPLATE(charge_and_release, tree_of_three)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_TEMPLATE(charge_and_release, locked_number)->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_TEMPLATE(charge_and_release, bare_number)->ThreadRange(1, 2)->UseRealTime();

constexpr std::size_t waiters = 1000;

// One after the other writes down when it came, and after how long.
class hand_overs {
 public:
  void begin() { released_ = std::chrono::steady_clock::now(); }
  void came(std::size_t who) {
    const auto now = std::chrono::steady_clock::now();
    latencies_.push_back(std::chrono::duration<double, std::nano>(now - released_).count());
    order_.push_back(who);
  }
  void report(benchmark::State& state) {
    std::ranges::sort(latencies_);
    const double median = latencies_[latencies_.size() / 2];
    const double p99 = latencies_[latencies_.size() * 99 / 100];
    int out_of_order = 0;
    for (std::size_t i = 1; i < order_.size(); ++i) out_of_order += order_[i] < order_[i - 1] ? 1 : 0;
    state.counters["result_median_ns"] = median;
    state.counters["p99_ns"] = p99;
    state.counters["p99_by_median"] = p99 / median;
    state.counters["out_of_order"] = static_cast<double>(out_of_order);
  }
  void clear() {
    latencies_.clear();
    order_.clear();
  }

 private:
  std::chrono::steady_clock::time_point released_;
  std::vector<double> latencies_;
  std::vector<std::size_t> order_;
};

struct budget_queue {
  memory_budget budget{"bench", {.limit = amount}};
  void take() {
    if (!budget.charge(amount)) std::abort();
  }
  void give() { budget.release(amount); }
  std::uint64_t waiting() const { return budget.waits(); }
};

// A mutex and a condition: who is told is whom the kernel wakes.
struct condition_queue {
  std::mutex guard;
  std::condition_variable freed;
  bool used = false;
  std::uint64_t waited = 0;
  void take() {
    std::unique_lock<std::mutex> locked(guard);
    if (used) ++waited;
    freed.wait(locked, [this] { return !used; });
    used = true;
  }
  void give() {
    {
      const std::lock_guard<std::mutex> locked(guard);
      used = false;
    }
    freed.notify_one();
  }
  std::uint64_t waiting() {
    const std::lock_guard<std::mutex> locked(guard);
    return waited;
  }
};

// `start` starts a waiter, which waits before the next is started.
template <typename Queue, typename Start>
void hand_over(Queue& queue, hand_overs& seen, const Start& start) {
  queue.take();
  const std::uint64_t before = queue.waiting();
  for (std::size_t who = 0; who < waiters; ++who) {
    start([&queue, &seen, who] {
      queue.take();
      seen.came(who);
      seen.begin();
      queue.give();
    });
    while (queue.waiting() != before + who + 1) std::this_thread::yield();
  }
  seen.begin();
  queue.give();
}

template <typename Queue>
void thousand_threads(benchmark::State& state) {
  hand_overs seen;
  for (auto _ : state) {
    seen.clear();
    Queue queue;
    std::vector<std::thread> threads;
    hand_over(queue, seen, [&](auto body) { threads.emplace_back(body); });
    for (std::thread& each : threads) each.join();
  }
  seen.report(state);
}
BENCHMARK_TEMPLATE(thousand_threads, budget_queue)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(3);
BENCHMARK_TEMPLATE(thousand_threads, condition_queue)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(3);

void thousand_tasks(benchmark::State& state) {
  hand_overs seen;
  auto where = runtime::create("bench", {.workers = 1});
  if (!where) std::abort();
  for (auto _ : state) {
    seen.clear();
    budget_queue queue;
    std::vector<task> tasks;
    hand_over(queue, seen, [&](auto body) { tasks.push_back((*where)->spawn(body)); });
    for (task& each : tasks) each.join();
  }
  seen.report(state);
}
BENCHMARK(thousand_tasks)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(3);

}  // namespace
}  // namespace larder::bench

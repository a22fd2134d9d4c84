// SPDX-License-Identifier: Apache-2.0
//
// What one would use instead of tasks, and tasks, alike: `run` calls a body where `spawn`, `spawn_detached`, `yield`
// and `sleep_until` work; `run_both` calls two that may wait for each other.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#ifdef LARDER_BENCH_BOOST_FIBER
#include <boost/fiber/condition_variable.hpp>
#include <boost/fiber/fiber.hpp>
#include <boost/fiber/fixedsize_stack.hpp>
#include <boost/fiber/mutex.hpp>
#include <boost/fiber/operations.hpp>
#include <boost/fiber/pooled_fixedsize_stack.hpp>
#endif

#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/atomic.h"
#include "os/futex.h"

namespace larder::bench {

// Whose turn it is, of two, who wait for theirs.
template <typename Mutex, typename Condition>
class locked_turn {
 public:
  // Gives the turn away and waits until it comes back; false if there is none any more.
  bool pass(unsigned from) {
    std::unique_lock<Mutex> held(guard_);
    whose_ = 1 - from;
    changed_[whose_].notify_one();
    while (whose_ != from && !ended_) changed_[from].wait(held);
    return !ended_;
  }
  void end() {
    const std::unique_lock<Mutex> held(guard_);
    ended_ = true;
    for (Condition& each : changed_) each.notify_one();
  }

 private:
  Mutex guard_;
  std::array<Condition, 2> changed_;
  unsigned whose_ = 0;  // guarded by guard_
  bool ended_ = false;  // guarded by guard_
};

class futex_turn {
 public:
  bool pass(unsigned from) {
    std::uint32_t expected = from;
    if (whose_.compare_exchange_strong(expected, 1 - from)) os::futex_wake_one(whose_);
    for (std::uint32_t now = whose_; now != from; now = whose_) {
      if (now == ended) return false;
      os::futex_wait(whose_, now, no_deadline);
    }
    return true;
  }
  void end() {
    whose_ = ended;
    os::futex_wake_one(whose_);
  }

 private:
  static constexpr std::uint32_t ended = 2;
  base::atomic<std::uint32_t> whose_{0};
};

class larder_one_worker {
 public:
  using handle = task;
  using lock = mutex;
  using turn = locked_turn<mutex, condition>;

  template <typename Body>
  void run(Body body) {
    runtime_->run(std::ref(body));
  }
  template <typename Body>
  handle spawn(Body body) {
    return runtime_->spawn(body);
  }
  template <typename Body>
  void spawn_detached(Body body) {
    runtime_->spawn_detached(body);
  }
  template <typename First, typename Second>
  void run_both(First first, Second second) {
    runtime_->run([&] {
      task other = runtime_->spawn(std::ref(second));
      first();
      other.join();
    });
  }
  static void yield() { this_task::yield(); }
  static void sleep_until(time_point wake) { this_task::sleep_until(wake); }

 private:
  const std::unique_ptr<runtime> runtime_ = *runtime::create("bench", {.workers = 1});
};

struct larder_two_workers {
  using turn = locked_turn<mutex, condition>;

  template <typename First, typename Second>
  void run_both(First first, Second second) {
    const auto both = *runtime::create("bench", {.workers = 2});
    both->spawn_detached_on(0, std::ref(first));
    both->spawn_detached_on(1, std::ref(second));
  }  // the runtime waits for them
};

struct std_threads {
  using handle = std::thread;
  using lock = std::mutex;
  using turn = locked_turn<std::mutex, std::condition_variable>;

  template <typename Body>
  void run(Body body) {
    body();
  }
  template <typename Body>
  handle spawn(Body body) {
    return std::thread(body);
  }
  template <typename First, typename Second>
  void run_both(First first, Second second) {
    std::thread other(second);
    first();
    other.join();
  }
  static void sleep_until(time_point wake) { std::this_thread::sleep_until(wake); }
};

struct futex_threads : std_threads {
  using turn = futex_turn;
};

#ifdef LARDER_BENCH_BOOST_FIBER

// In the thread that runs them.
template <typename Stacks>
class boost_fibers_on {
 public:
  using handle = boost::fibers::fiber;
  using lock = boost::fibers::mutex;
  using turn = locked_turn<boost::fibers::mutex, boost::fibers::condition_variable>;

  template <typename Body>
  void run(Body body) {
    body();
  }
  template <typename Body>
  handle spawn(Body body) {
    return handle(std::allocator_arg, stacks_, body);
  }
  template <typename Body>
  void spawn_detached(Body body) {
    spawn(body).detach();
  }
  template <typename First, typename Second>
  void run_both(First first, Second second) {
    handle other = spawn(std::ref(second));
    first();
    other.join();
  }
  static void yield() { boost::this_fiber::yield(); }
  static void sleep_until(time_point wake) { boost::this_fiber::sleep_until(wake); }

 private:
  // Of the size that tasks have.
  Stacks stacks_{std::size_t{64} << 10};
};

// The stacks that it takes unless told otherwise are malloc's; neither has guards.
using boost_fibers = boost_fibers_on<boost::fibers::fixedsize_stack>;
using boost_fibers_pooled = boost_fibers_on<boost::fibers::pooled_fixedsize_stack>;

#endif

}  // namespace larder::bench

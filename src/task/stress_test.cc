// SPDX-License-Identifier: Apache-2.0
//
// Tasks and threads that lock, wait, sleep, spawn and wake each other at random, also for no reason. What must hold:
// no lock is broken, every wait ends, and in the end there are no tasks and no memory.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/sanitizers.h"
#include "os/parker.h"
#include "tests/support/model_random.h"

namespace larder {
namespace {

#if defined(LARDER_THREAD_SANITIZER) || defined(LARDER_ADDRESS_SANITIZER)
constexpr int steps_of_each = 150;
#else
constexpr int steps_of_each = 1000;
#endif
constexpr int tasks_at_first = 24;
constexpr int threads = 3;
constexpr std::size_t rooms = 4;

// A place with a lock, a counter that only the lock keeps whole, and something to wait for.
struct room {
  mutex guard;
  condition changed;
  std::uint64_t visits = 0;  // guarded by `guard`
  std::uint64_t echo = 0;    // guarded by `guard`; equal to `visits` whenever it is free
};

// Everybody who ever waited: parkers are never freed, so anyone may be woken at any time.
class all_parkers {
 public:
  void add(os::parker& one) {
    const std::lock_guard<std::mutex> held(guard_);
    known_.push_back(&one);
  }
  void wake_one(tests::model_random& random) {
    const std::lock_guard<std::mutex> held(guard_);
    if (!known_.empty()) known_[random.below(known_.size())]->unpark();
  }

 private:
  std::mutex guard_;
  std::vector<os::parker*> known_;  // guarded by guard_
};

class stress {
 public:
  explicit stress(runtime& where) : runtime_(where) {}

  void live(std::uint64_t stream, int steps, int generation) {
    tests::model_random random(stream, !this_task::inside());
    parkers_.add(os::parker::current());
    for (int step = 0; step < steps; ++step) take_a_step(random, stream, generation);
  }

  void check_rooms() {
    std::uint64_t visits = 0;
    for (room& each : rooms_) {
      EXPECT_TRUE(each.guard.try_lock());
      EXPECT_EQ(each.visits, each.echo);
      visits += each.visits;
      each.guard.unlock();
    }
    EXPECT_EQ(visits, visits_);
  }

 private:
  void take_a_step(tests::model_random& random, std::uint64_t stream, int generation) {
    const std::size_t here = random.below(rooms);
    switch (random.below(10)) {
      case 0:
      case 1:
        visit(rooms_[here], random);
        break;
      case 2: {  // two at once, in one order for all
        const std::size_t other = random.below(rooms);
        if (other == here) break;
        const std::lock_guard<mutex> first(rooms_[std::min(here, other)].guard);
        visit(rooms_[std::max(here, other)], random);
        break;
      }
      case 3: {
        std::unique_lock<mutex> held(rooms_[here].guard);
        const std::uint64_t seen = rooms_[here].visits;
        const time_point deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(random.below(300));
        rooms_[here].changed.wait_until(held, deadline, [&] { return rooms_[here].visits != seen; });
        break;
      }
      case 4:
        if (random.one_in(2)) {
          rooms_[here].changed.notify_one();
        } else {
          rooms_[here].changed.notify_all();
        }
        break;
      case 5: {
        const time_point wake = std::chrono::steady_clock::now() + std::chrono::microseconds(random.below(200));
        this_task::sleep_until(wake);
        EXPECT_GE(std::chrono::steady_clock::now(), wake);
        break;
      }
      case 6:
        this_task::yield();
        break;
      case 7:
        parkers_.wake_one(random);
        break;
      case 8: {
        if (generation > 1) break;
        task child = runtime_.spawn([this, stream, generation] { live(stream * 31 + 7, 5, generation + 1); });
        if (random.one_in(2)) child.join();
        break;  // else its destructor waits
      }
      default: {
        coroutine inner([&] {
          visit(rooms_[here], random);
          coroutine::yield();
          visit(rooms_[here], random);
        });
        inner.resume();
        if (random.one_in(2)) inner.resume();  // else it is cancelled
      }
    }
  }

  void visit(room& visited, tests::model_random& random) {
    const std::lock_guard<mutex> held(visited.guard);
    ++visits_;
    ++visited.visits;
    if (random.one_in(4)) this_task::yield();
    ++visited.echo;
    if (random.one_in(3)) visited.changed.notify_one();
  }

  runtime& runtime_;
  room rooms_[rooms];
  all_parkers parkers_;
  std::atomic<std::uint64_t> visits_{0};
};

TEST(TaskStressTest, TasksAndThreadsEndWhateverTheyDoToEachOther) {
  memory_budget budget("stress");
  {
    auto where = *runtime::create("stress", {.workers = 2, .budget = &budget});
    const tests::model_random shown;  // the seed of all
    stress all(*where);
    std::vector<std::thread> plain;
    for (std::uint64_t i = 0; i < threads; ++i) {
      plain.emplace_back([&all, i] { all.live(1000 + i, steps_of_each, 0); });
    }
    std::vector<task> tasks;
    for (std::uint64_t i = 0; i < tasks_at_first; ++i) {
      tasks.push_back(where->spawn([&all, i] { all.live(i, steps_of_each, 0); }));
    }
    for (task& each : tasks) each.join();
    for (std::thread& each : plain) each.join();
    all.check_rooms();
    EXPECT_EQ(where->tasks(), 0U);
    where.reset();
  }
  EXPECT_EQ(budget.used(), bytes{0});
}

// Tasks started by threads that end at once, on runtimes that go as soon as the last has ended: who makes the last task
// ready may still be at it then.
TEST(TaskStressTest, RuntimesComeAndGoUnderTheirSpawners) {
  memory_budget budget("short-lived");
  constexpr int rounds = steps_of_each / 10;
  for (int round = 0; round < rounds; ++round) {
    std::atomic<int> ended{0};
    {
      auto where = *runtime::create("short-lived", {.workers = 2, .budget = &budget});
      mutex guard;
      guard.lock();
      for (int i = 0; i < 4; ++i) {
        where->spawn_detached([&] {
          const std::lock_guard<mutex> held(guard);
          ++ended;
        });
      }
      std::thread unlocking([&guard] { guard.unlock(); });
      unlocking.join();
      where.reset();
    }
    EXPECT_EQ(ended, 4);
  }
  EXPECT_EQ(budget.used(), bytes{0});
}

}  // namespace
}  // namespace larder

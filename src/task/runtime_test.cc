// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/sanitizers.h"
#include "os/parker.h"
#include "tests/support/runtime_over_workers.h"
#include "tests/support/stat_value.h"

#ifdef LARDER_ADDRESS_SANITIZER
#include <sanitizer/lsan_interface.h>
#endif

namespace larder {
namespace {

using namespace std::chrono_literals;

time_point now() { return std::chrono::steady_clock::now(); }

#if defined(LARDER_THREAD_SANITIZER) || defined(LARDER_ADDRESS_SANITIZER)
constexpr int share = 20;  // of the work that a test does without a sanitizer
#else
constexpr int share = 1;
#endif

class RuntimeTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, RuntimeTest, testing::Values(1, 2, 4), tests::name_of_workers);

#ifdef LARDER_ADDRESS_SANITIZER
TEST_P(RuntimeTest, LeaksNothingWhileItLives) {
  for (int i = 0; i < 20; ++i) runtime_->spawn([] {}).join();
  EXPECT_EQ(__lsan_do_recoverable_leak_check(), 0);  // its cached tasks own parkers
}
#endif

TEST_P(RuntimeTest, RunsATaskOnAWorkerAndJoinsIt) {
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  bool inside = false;
  runtime* current = nullptr;
  task ran = runtime_->spawn([&] {
    there = std::this_thread::get_id();
    inside = this_task::inside();
    current = runtime::current();
  });
  EXPECT_TRUE(ran.joinable());
  ran.join();
  EXPECT_FALSE(ran.joinable());
  EXPECT_TRUE(ran.done());
  EXPECT_NE(there, here);
  EXPECT_TRUE(inside);
  EXPECT_EQ(current, runtime_.get());
  EXPECT_FALSE(this_task::inside());
  EXPECT_EQ(runtime::current(), nullptr);
}

TEST_P(RuntimeTest, JoinThrowsWhatTheTaskThrew) {
  task throwing = runtime_->spawn([] { throw std::runtime_error("from a task"); });
  try {
    throwing.join();
    ADD_FAILURE() << "nothing came out";
  } catch (const std::runtime_error& thrown) {
    EXPECT_STREQ(thrown.what(), "from a task");
  }
  EXPECT_THROW(runtime_->run([] { throw 5; }), int);
}

TEST_P(RuntimeTest, DestructorOfATaskWaitsAndSwallows) {
  std::atomic<bool> ended{false};
  {
    const task waited_for = runtime_->spawn([&] {
      this_task::sleep_for(5ms);
      ended = true;
      throw std::runtime_error("nobody asks");
    });
  }
  EXPECT_TRUE(ended);
}

TEST_P(RuntimeTest, MoveAssignmentWaitsForTheTaskThatWasThere) {
  std::atomic<int> ended{0};
  task held = runtime_->spawn([&] {
    this_task::sleep_for(5ms);
    ++ended;
  });
  task next = runtime_->spawn([&] { ++ended; });
  next.join();
  held = runtime_->spawn([&] { ++ended; });
  EXPECT_GE(ended, 2);
  held.join();
  EXPECT_EQ(ended, 3);
}

TEST_P(RuntimeTest, DoneTellsWithoutWaiting) {
  std::atomic<bool> go{false};
  task waiting = runtime_->spawn([&] {
    while (!go) this_task::yield();
  });
  EXPECT_FALSE(waiting.done());
  go = true;
  while (!waiting.done()) std::this_thread::yield();
  waiting.join();
  EXPECT_TRUE(task().done());
}

TEST_P(RuntimeTest, RuntimeWaitsForDetachedTasks) {
  std::atomic<int> ended{0};
  for (int i = 0; i < 20; ++i) {
    runtime_->spawn_detached([&, i] {
      this_task::sleep_for(std::chrono::milliseconds(i % 5));
      // One that is started while the runtime is going is waited for too.
      if (i % 2 == 0) {
        runtime::current()->spawn_detached([&] {
          this_task::yield();
          ++ended;
        });
      }
      ++ended;
    });
  }
  runtime_->spawn([&] { ++ended; }).detach();
  runtime_.reset();
  EXPECT_EQ(ended, 31);
}

TEST_P(RuntimeTest, TasksThatArePlacedStayOnTheirWorker) {
  std::atomic<int> strays{0};
  std::vector<task> tasks;
  for (int i = 0; i < 50; ++i) {
    const unsigned home = static_cast<unsigned>(i) % runtime_->workers();
    tasks.push_back(runtime_->spawn_on(home, [&, home] {
      const auto thread = std::this_thread::get_id();
      for (int step = 0; step < 20; ++step) {
        if (step % 5 == 0) {
          this_task::sleep_for(100us);
        } else {
          this_task::yield();
        }
        if (runtime::current_worker() != home || std::this_thread::get_id() != thread) ++strays;
      }
    }));
  }
  for (task& each : tasks) each.join();
  EXPECT_EQ(strays, 0);
}

// A worker whose task computes and never parks keeps nothing to itself: not what that task starts, not what threads
// start there, not what it wakes.
TEST_P(RuntimeTest, WhatWaitsBehindATaskThatComputesIsTakenByOthers) {
  if (GetParam() == 1) GTEST_SKIP() << "there are no others";
  std::atomic<bool> woken_ran{false};
  std::atomic<bool> started_ran{false};
  std::atomic<unsigned> from_outside{0};
  mutex guard;
  guard.lock();
  task waiting = runtime_->spawn([&] {
    const std::lock_guard<mutex> held(guard);
    woken_ran = true;
  });
  task computing = runtime_->spawn([&] {
    guard.unlock();
    while (!woken_ran) std::this_thread::yield();  // the thread's, not the task's
    runtime_->spawn_detached([&] { started_ran = true; });
    while (!started_ran || from_outside < 4 * runtime_->workers()) std::this_thread::yield();
  });
  for (unsigned i = 0; i < 4 * runtime_->workers(); ++i) runtime_->spawn_detached([&] { ++from_outside; });
  computing.join();
  waiting.join();
}

// As many tasks as workers that all must run at once to end.
TEST_P(RuntimeTest, TasksStartedByOneSpreadOverAllWorkers) {
  for (int round = 0; round < 20; ++round) {
    runtime_->run([this] {
      std::atomic<unsigned> running{0};
      std::vector<task> tasks;
      for (unsigned i = 0; i < runtime_->workers(); ++i) {
        tasks.push_back(runtime_->spawn([&] {
          ++running;
          while (running < runtime_->workers()) std::this_thread::yield();
        }));
      }
      for (task& each : tasks) each.join();
    });
  }
}

// More than a worker's ring has room for, in the order of their start where nobody takes any.
TEST_P(RuntimeTest, ThousandsOfReadyTasksAllRun) {
  runtime_->run([this] {
    std::atomic<int> ran{0};
    std::vector<task> tasks;
    for (int i = 0; i < 3000; ++i) {
      tasks.push_back(runtime_->spawn([&] {
        this_task::yield();
        ++ran;
      }));
    }
    for (task& each : tasks) each.join();
    EXPECT_EQ(ran, 3000);
  });
}

TEST_P(RuntimeTest, SpawnDetachedOnRunsOnTheChosenWorker) {
  std::atomic<unsigned> right{0};
  for (unsigned chosen = 0; chosen < runtime_->workers(); ++chosen) {
    runtime_->spawn_detached_on(chosen, [&, chosen] { right += runtime::current_worker() == chosen ? 1 : 0; });
  }
  runtime_->run([this, &right] {  // from a task, onto other workers
    for (unsigned chosen = 0; chosen < runtime_->workers(); ++chosen) {
      runtime_->spawn_detached_on(chosen, [&, chosen] { right += runtime::current_worker() == chosen ? 1 : 0; });
    }
  });
  const unsigned workers = runtime_->workers();
  runtime_.reset();
  EXPECT_EQ(right, 2 * workers);
}

TEST_P(RuntimeTest, TasksJoinTasks) {
  const auto sum_below = [this](auto& self, int n) -> int {
    if (n == 0) return 0;
    int rest = 0;
    runtime_->run([&] { rest = self(self, n - 1); });
    return rest + n;
  };
  int sum = 0;
  runtime_->run([&] { sum = sum_below(sum_below, 50); });
  EXPECT_EQ(sum, 1275);
}

TEST_P(RuntimeTest, ManyTasksFromManyThreads) {
  constexpr int each_starts = 25'000 / share;
  std::atomic<int> ran{0};
  std::vector<std::thread> starters;
  for (int i = 0; i < 4; ++i) {
    starters.emplace_back([&, i] {
      for (int n = 0; n < each_starts; ++n) {
        if (n % 16 == i) {
          runtime_->run([&] { ++ran; });
        } else {
          runtime_->spawn_detached([&] { ++ran; });
        }
      }
    });
  }
  for (std::thread& each : starters) each.join();
  EXPECT_EQ(runtime_->tasks_started(), 4U * each_starts);
  runtime_.reset();
  EXPECT_EQ(ran, 4 * each_starts);
}

TEST_P(RuntimeTest, ManyTasksAliveAtOnce) {
  start({.stack_size = 16_KiB});
  constexpr std::size_t count = 10'000 / share;
  std::atomic<bool> go{false};
  std::atomic<std::size_t> ended{0};
  for (std::size_t i = 0; i < count; ++i) {
    runtime_->spawn_detached([&] {
      while (!go) this_task::sleep_for(2ms);
      ++ended;
    });
  }
  EXPECT_EQ(runtime_->tasks(), count);
  go = true;
  runtime_.reset();
  EXPECT_EQ(ended, count);
}

TEST_P(RuntimeTest, YieldLetsAllOthersRunOnce) {
  on_worker_0([this] {
    // All on one worker: rounds of turns, none starved, none twice in a round.
    constexpr int count = 5;
    std::vector<int> turns;
    std::vector<task> tasks;
    for (int number = 0; number < count; ++number) {
      tasks.push_back(runtime_->spawn_on(0, [&turns, number] {
        for (int round = 0; round < 10; ++round) {
          turns.push_back(number);
          this_task::yield();
        }
      }));
    }
    for (task& each : tasks) each.join();
    ASSERT_EQ(turns.size(), 50U);
    for (std::size_t i = 0; i < turns.size(); ++i) EXPECT_EQ(turns[i], static_cast<int>(i % count)) << i;
  });
}

TEST_P(RuntimeTest, BusyTasksDoNotKeepOthersFromBeingStartedOrWoken) {
  std::atomic<bool> stop{false};
  std::vector<task> busy;
  for (unsigned i = 0; i < runtime_->workers(); ++i) {
    busy.push_back(runtime_->spawn([&] {
      while (!stop) this_task::yield();
    }));
  }
  for (int i = 0; i < 20; ++i) runtime_->run([] { this_task::sleep_for(100us); });
  EXPECT_EQ(runtime_->tasks(), runtime_->workers());
  stop = true;
  for (task& each : busy) each.join();
}

// Lets `count` tasks of one worker sleep until 20 us apart, started in another order than they wake. The order in which
// they woke; nothing if the machine was so busy that some came too late to sleep.
std::optional<std::vector<int>> order_of_waking(runtime& where, int count, std::chrono::milliseconds ahead) {
  time_point start;  // set when all have been spawned, before the first of them runs
  bool all_in_time = true;
  std::vector<int> woken;
  std::vector<task> tasks;
  for (int i = 0; i < count; ++i) {
    const int rank = (i * 7919) % count;
    tasks.push_back(where.spawn_on(0, [&, rank] {
      const time_point wake = start + rank * 20us;
      if (now() >= start) all_in_time = false;
      this_task::sleep_until(wake);
      EXPECT_GE(now(), wake);
      woken.push_back(rank);
    }));
  }
  start = now() + ahead;
  for (task& each : tasks) each.join();
  if (!all_in_time) return std::nullopt;
  return woken;
}

TEST_P(RuntimeTest, SleepersWakeInTheOrderOfTheirDeadlines) {
  on_worker_0([this] {
    constexpr int count = 500;
    std::optional<std::vector<int>> woken;
    for (auto ahead = 5ms; !woken; ahead *= 2) woken = order_of_waking(*runtime_, count, ahead);
    EXPECT_EQ(woken->size(), static_cast<std::size_t>(count));
    EXPECT_TRUE(std::is_sorted(woken->begin(), woken->end()));
  });
}

TEST_P(RuntimeTest, EqualDeadlinesWakeAllSleepers) {
  const time_point wake = now() + 10ms;
  std::vector<task> tasks;
  std::atomic<int> woken{0};
  for (int i = 0; i < 300; ++i) {
    tasks.push_back(runtime_->spawn([&] {
      this_task::sleep_until(wake);
      EXPECT_GE(now(), wake);
      ++woken;
    }));
  }
  for (task& each : tasks) each.join();
  EXPECT_EQ(woken, 300);
  EXPECT_LT(now() - wake, 5s);
}

TEST_P(RuntimeTest, SleepUntilThePastReturnsAtOnce) {
  runtime_->run([] {
    this_task::sleep_until(now() - 1h);
    this_task::sleep_until(time_point::min());
    this_task::sleep_for(0ns);
  });
  this_task::sleep_until(now() - 1h);
  const time_point before = now();
  this_task::sleep_for(3ms);  // on a plain thread
  EXPECT_GE(now() - before, 3ms);
  this_task::yield();
}

TEST_P(RuntimeTest, WakeUpsLeftFromEarlierWaitsDoNotCutASleepShort) {
  const auto sleep_through = [] {
    for (int i = 0; i < 5; ++i) {
      os::parker::current().unpark();
      const time_point wake = now() + 500us;
      this_task::sleep_until(wake);
      EXPECT_GE(now(), wake);
    }
  };
  runtime_->run(sleep_through);
  sleep_through();
}

// A coroutine inside a task: what parks is the task, and the worker goes on with others.
TEST_P(RuntimeTest, TaskParksInsideACoroutineAndTheWorkerGoesOn) {
  std::atomic<int> steps{0};
  std::vector<task> tasks;
  for (int i = 0; i < 20; ++i) {
    tasks.push_back(runtime_->spawn([&, i] {
      EXPECT_FALSE(coroutine::inside()) << "another task's coroutine shows through";
      coroutine outer([&] {
        coroutine inner([&] {
          this_task::sleep_for(std::chrono::microseconds(100 * (i % 7)));
          EXPECT_TRUE(coroutine::inside());
          ++steps;
          coroutine::yield();
          this_task::yield();
          ++steps;
        });
        inner.resume();
        this_task::sleep_for(100us);
        coroutine::yield();
        inner.resume();
        EXPECT_TRUE(inner.done());
      });
      outer.resume();
      EXPECT_FALSE(coroutine::inside());
      this_task::yield();
      outer.resume();
      EXPECT_TRUE(outer.done());
    }));
  }
  for (task& each : tasks) each.join();
  EXPECT_EQ(steps, 40);
}

// A task inside a coroutine inside a task: the innermost waits for what the outermost's worker must do meanwhile.
TEST_P(RuntimeTest, TaskInsideACoroutineInsideATask) {
  std::string steps;
  runtime_->run([&] {
    coroutine between([&] {
      steps += "a";
      runtime_->run([&] {
        EXPECT_FALSE(coroutine::inside());
        this_task::sleep_for(1ms);
        steps += "b";
      });
      EXPECT_TRUE(coroutine::inside());
      coroutine::yield();
      steps += "d";
    });
    between.resume();
    steps += "c";
    between.resume();
  });
  EXPECT_EQ(steps, "abcd");
}

TEST_P(RuntimeTest, CoroutineIsHandedFromTaskToTask) {
  std::vector<int> steps;
  coroutine shared([&] {
    for (int i = 0;; ++i) {
      this_task::sleep_for(10us);
      steps.push_back(i);
      coroutine::yield();
    }
  });
  for (int i = 0; i < 8; ++i) runtime_->run([&] { shared.resume(); });
  shared.resume();  // and to a plain thread
  EXPECT_EQ(steps.size(), 9U);
}

TEST_P(RuntimeTest, ClosuresOfAnyAlignmentAndTheLargestSizeArrive) {
  struct alignas(128) wide {
    std::array<char, runtime::closure_size_max - 128> content;
  };
  wide capture{};
  capture.content.back() = 'z';
  char seen = 0;
  bool aligned = false;
  runtime_->run([&seen, &aligned, capture] {
    seen = capture.content.back();
    aligned = reinterpret_cast<std::uintptr_t>(&capture) % 128 == 0;
  });
  EXPECT_EQ(seen, 'z');
  EXPECT_TRUE(aligned);
}

TEST_P(RuntimeTest, ClosureIsDestroyedBeforeTheJoinReturns) {
  auto shared = std::make_shared<int>(1);
  runtime_->run([shared] {});
  EXPECT_EQ(shared.use_count(), 1);
  EXPECT_THROW(runtime_->run([shared] { throw std::runtime_error("out"); }), std::runtime_error);
  EXPECT_EQ(shared.use_count(), 1);
}

TEST_P(RuntimeTest, FiguresAreInTheRegistry) {
  runtime_->run([] {});
  EXPECT_EQ(tests::stat_value("runtime/tested", "workers"), GetParam());
  EXPECT_EQ(tests::stat_value("runtime/tested", "tasks_started"), 1U);
  runtime_.reset();
  EXPECT_EQ(tests::stat_value("runtime/tested", "workers"), std::nullopt);
}

TEST_P(RuntimeTest, TwoRuntimesServeEachOther) {
  memory_budget other_budget("other");
  {
    auto other = *runtime::create("other", {.workers = 1, .budget = &other_budget});
    int seen = 0;
    runtime_->run([&] {
      other->run([&] {
        EXPECT_EQ(runtime::current(), other.get());
        runtime_->run([&] {
          EXPECT_EQ(runtime::current(), runtime_.get());
          ++seen;
        });
      });
    });
    EXPECT_EQ(seen, 1);
  }
  EXPECT_EQ(other_budget.used(), bytes{0});
}

class RuntimeDeathTest : public testing::Test {
 protected:
  RuntimeDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(RuntimeDeathTest, JoinTwiceDies) {
  auto one = *runtime::create("dying", {.workers = 1});
  task joined = one->spawn([] {});
  joined.join();
  EXPECT_DEATH(joined.join(), "join of a task that was joined");
  EXPECT_DEATH(joined.detach(), "detach of a task that was joined");
}

TEST_F(RuntimeDeathTest, DestructionByOneOfItsOwnTasksDies) {
  const auto destroy_from_inside = [] {
    auto one = *runtime::create("dying", {.workers = 1});
    one->run([&] { one.reset(); });
  };
  EXPECT_DEATH(destroy_from_inside(), "runtime \"dying\" is destroyed by one of its own tasks");
}

TEST_F(RuntimeDeathTest, WorkerThatIsNotThereDies) {
  auto one = *runtime::create("dying", {.workers = 1});
  EXPECT_DEATH(one->spawn_detached_on(1, [] {}), "worker 1 of 1");
}

TEST_F(RuntimeDeathTest, ExceptionOutOfADetachedTaskEndsTheProcess) {
  const auto throw_detached = [] {
    auto one = *runtime::create("dying", {.workers = 1});
    one->spawn_detached([] { throw std::runtime_error("nobody to hear"); });
  };
  EXPECT_DEATH(throw_detached(), "");
}

// Whether it has thrown by then, or does so later.
TEST_F(RuntimeDeathTest, ExceptionOutOfATaskThatIsDetachedEndsTheProcess) {
  const auto detach = [](bool once_it_has_ended) {
    auto one = *runtime::create("dying", {.workers = 1});
    std::atomic<bool> may_throw{once_it_has_ended};
    task thrower = one->spawn([&] {
      while (!may_throw) std::this_thread::yield();
      throw std::runtime_error("nobody to hear");
    });
    while (once_it_has_ended && !thrower.done()) std::this_thread::yield();
    thrower.detach();
    may_throw = true;
  };
  EXPECT_DEATH(detach(false), "");
  EXPECT_DEATH(detach(true), "");
}

}  // namespace
}  // namespace larder

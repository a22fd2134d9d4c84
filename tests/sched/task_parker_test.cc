// SPDX-License-Identifier: Apache-2.0
//
// A run queue and its tasks, with an event in the place of the ring: tasks park, other threads wake them, deadlines
// pass, and the queue goes when the last task has ended.
#include "task/task_parker.h"

#include <array>
#include <chrono>

#include <gtest/gtest.h>

#include "os/clock.h"
#include "os/futex.h"
#include "task/run_queue.h"
#include "tests/sched/explore.h"
#include "tests/sched/task_on_stack.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// A run queue that sleeps on an event and ends with its last task.
class event_queue final : public task_layer::run_queue {
 public:
  void run_to_the_end(unsigned tasks) {
    live_ = tasks;
    run();
    wait_for_visitors();
    gone_ = true;
  }
  base::atomic<std::uint32_t> event{0};

 private:
  void wait(time_point deadline) override {
    while (event.exchange(0) == 0) {
      if (!os::futex_wait(event, 0, deadline)) return;
    }
  }
  void look() override {}
  void wake() override {
    require(!gone_, "a queue that has gone is woken");
    event = 1;
    os::futex_wake_one(event);
    require(!gone_, "a queue went while it was woken");
  }
  bool may_end() override { return live_ == 0; }
  void finish(task_layer::task_block&) override { --live_; }

  unsigned live_ = 0;  // the owner's
  bool gone_ = false;
};

// One task waits for two others' flags.
class task_and_two_wakers : public scenario {
 public:
  task_and_two_wakers()
      : task_(
            queue_, [](void* self) { static_cast<task_and_two_wakers*>(self)->wait(); }, this) {
    task_.make_ready();
    name(queue_.event, "event");
    thread("worker", [this] { queue_.run_to_the_end(1); });
    thread("waker", [this] {
      first_ = true;
      task_.parker().unpark();
    });
    thread("other", [this] {
      second_ = true;
      task_.parker().unpark();
    });
  }
  void audit() override { require(ended_, "the task has not ended"); }

 private:
  void wait() {
    while (!first_ || !second_) os::parker::current().park();
    ended_ = true;
  }
  base::atomic<bool> first_{false};
  base::atomic<bool> second_{false};
  bool ended_ = false;
  event_queue queue_;
  task_on_stack task_;
};

TEST(TaskParkerSchedTest, NoWakeUpOfATaskIsLost) {
  const search_report report = explore<task_and_two_wakers>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(TaskParkerSchedTest, OwnerThatLooksBeforeItSaysThatItSleepsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_and_two_wakers>(mutant::look_before_sleeping));
}

TEST(TaskParkerSchedTest, PusherThatLooksForASleeperFirstIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_and_two_wakers>(mutant::wake_before_push));
}

// Only a store buffer shows it: the owner looks at the inbox before others can see that it sleeps.
TEST(TaskParkerSchedTest, OwnerThatSaysWithoutAFenceThatItSleepsIsCaught) {
  const search_options buffered{.system = {.store_delays = 1}};
  EXPECT_TRUE(mutant_is_killed<task_and_two_wakers>(mutant::sleeping_unfenced, buffered));
  EXPECT_TRUE(no_schedule_fails<task_and_two_wakers>(buffered));
}

TEST(TaskParkerSchedTest, QueueThatGoesWhileItIsVisitedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_and_two_wakers>(mutant::visitors_forgotten));
}

// A task on each of two queues; each waits for the other.
class tasks_of_two_queues : public scenario {
 public:
  tasks_of_two_queues() {
    for (std::size_t side = 0; side < 2; ++side) {
      thread(side == 0 ? "left" : "right", [this, side] { sides_[side].queue.run_to_the_end(1); });
    }
  }
  void audit() override { require(sides_[0].met && sides_[1].met, "a task has not met the other"); }

 private:
  struct task_side {
    task_side()
        : task(
              queue, [](void* self) { static_cast<task_side*>(self)->meet(); }, this) {
      task.make_ready();
    }
    void meet() {
      here = true;
      other->task.parker().unpark();
      while (!other->here) os::parker::current().park();
      met = true;
    }
    base::atomic<bool> here{false};
    bool met = false;
    task_side* other = nullptr;
    event_queue queue;
    task_on_stack task;
  };
  struct linked_sides : std::array<task_side, 2> {
    linked_sides() {
      front().other = &back();
      back().other = &front();
    }
  };
  linked_sides sides_;
};

TEST(TaskParkerSchedTest, TasksOfTwoQueuesWakeEachOther) {
  const search_report report = explore<tasks_of_two_queues>({.preemptions = 4});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// One token for two parks with deadlines: one of them finds it, or it is left.
class task_with_deadlines : public scenario {
 public:
  task_with_deadlines()
      : task_(
            queue_, [](void* self) { static_cast<task_with_deadlines*>(self)->wait(); }, this) {
    task_.make_ready();
    name(queue_.event, "event");
    thread("worker", [this] { queue_.run_to_the_end(1); });
    thread("waker", [this] { task_.parker().unpark(); });
    // Time also passes while the worker does not sleep.
    thread("clock", [this] { os::futex_wait(never_, 0, os::now() + 1h); });
  }
  void audit() override { require(found_ <= 1 && parks_ == 2, "one token ended %u parks", found_); }

 private:
  void wait() {
    for (; parks_ < 2; ++parks_) {
      const time_point deadline = os::now() + 1h;
      if (os::parker::current().park_until(deadline)) {
        ++found_;
      } else {
        require(os::now() >= deadline, "a park ended without a token before its deadline");
      }
    }
  }
  base::atomic<std::uint32_t> never_{0};
  unsigned parks_ = 0;
  unsigned found_ = 0;
  event_queue queue_;
  task_on_stack task_;
};

TEST(TaskParkerSchedTest, DeadlineAndUnparkEndAParkOnceBetweenThem) {
  const search_report report = explore<task_with_deadlines>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(TaskParkerSchedTest, DeadlineThatMakesReadyWhatAnUnparkMadeReadyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_with_deadlines>(mutant::expiry_makes_ready_too));
}

}  // namespace
}  // namespace larder::sched

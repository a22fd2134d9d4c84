// SPDX-License-Identifier: Apache-2.0
//
// Queues that share tasks: the ring between its owner and thieves, a task that is made ready where it does not run, and
// a worker that computes while another sleeps.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <gtest/gtest.h>

#include "base/yield.h"
#include "os/futex.h"
#include "task/run_queue.h"
#include "task/stealable_ring.h"
#include "tests/sched/explore.h"
#include "tests/sched/task_on_stack.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// The owner adds more than the ring has room for and takes what is left; two thieves take halves.
class ring_and_thieves : public scenario {
 public:
  ring_and_thieves() {
    thread("owner", [this] {
      for (element& each : elements_) {
        while (!ring_.push(each)) take(ring_.pop());
      }
      while (element* first = ring_.pop()) take(first);
    });
    for (const char* thief : {"thief", "other thief"}) {
      thread(thief, [this] {
        std::array<element*, 2> stolen{};
        const std::size_t count = ring_.take_half(stolen.data(), stolen.size());
        for (std::size_t i = 0; i < count; ++i) take(stolen[i]);
      });
    }
  }
  void audit() override {
    for (std::size_t i = 0; i < elements_.size(); ++i) {
      require(elements_[i].taken == 1, "element %zu was taken %u times", i, elements_[i].taken.load());
    }
    require(ring_.size() == 0, "%zu are left", ring_.size());
  }

 private:
  struct element {
    base::passive_atomic<unsigned> taken{0};
  };
  static void take(element* taken) {
    if (taken != nullptr) ++taken->taken;
  }
  std::array<element, 4> elements_;
  task_layer::stealable_ring<element, 2> ring_;
};

TEST(WorkStealingSchedTest, EachElementOfARingIsTakenOnce) {
  const search_report report = explore<ring_and_thieves>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(WorkStealingSchedTest, OwnerThatTakesAsIfThereWereNoThievesIsCaught) {
  EXPECT_TRUE(mutant_is_killed<ring_and_thieves>(mutant::pop_without_exchange));
}

TEST(WorkStealingSchedTest, ThiefThatMovesTheHeadBlindlyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<ring_and_thieves>(mutant::steal_by_store));
}

// Queues that share tasks and end with the last of them. They take what waits alone at once.
class shared_queues {
 public:
  class queue final : public task_layer::run_queue {
   public:
    explicit queue(shared_queues& all) : all_(all) {}
    void join_group() { run_queue::join_group(all_.group_); }
    void run_to_the_end() {
      run();
      wait_for_visitors();
    }
    // I/O that two tasks, or one, have waited for ends the owner's wait, this one or the next. Any thread, once.
    void complete(task_on_stack& first, task_on_stack* second = nullptr) {
      completed_ = {&first, second};
      has_completed_ = true;
      wake();
    }

   private:
    void wait(time_point deadline) override {
      if (deadline != no_deadline) {
        base::yield();  // a nap, during which others do something
      } else {
        while (event_.exchange(0) == 0) os::futex_wait(event_, 0, no_deadline);
      }
      if (!has_completed_.exchange(false)) return;
      for (task_on_stack* each : completed_) {
        if (each != nullptr) each->make_ready();
      }
    }
    void look() override {}
    void wake() override {
      event_ = 1;
      os::futex_wake_one(event_);
    }
    bool may_end() override { return all_.live_ == 0; }
    void finish(task_layer::task_block&) override {
      if (--all_.live_ != 0) return;
      for (queue* other : {&all_.left, &all_.right, &all_.third}) {
        if (other != this) other->wake();
      }
    }

    shared_queues& all_;
    base::atomic<std::uint32_t> event_{0};
    base::atomic<bool> has_completed_{false};
    std::array<task_on_stack*, 2> completed_{};  // written before `has_completed_`
  };

  explicit shared_queues(unsigned tasks, unsigned queues = 2) : live_(tasks) {
    group_.alone = group_.search_longest = 0ns;
    group_.queues = {&left, &right};
    if (queues == 3) group_.queues.push_back(&third);
    for (queue* each : {&left, &right, &third}) each->join_group();
  }

 private:
  task_layer::queue_group group_;
  base::atomic<unsigned> live_;

 public:
  queue left{*this};
  queue right{*this};
  queue third{*this};  // of three
};

// A task parks on one queue; one of another makes it ready there, and runs it next.
class task_woken_on_another_queue : public scenario {
 public:
  task_woken_on_another_queue()
      : waiting_(
            queues_.left, [](void* self) { static_cast<task_woken_on_another_queue*>(self)->wait(); }, this),
        waking_(
            queues_.right, [](void* self) { static_cast<task_woken_on_another_queue*>(self)->wake(); }, this) {
    waiting_.make_ready();
    waking_.make_ready();
    thread("left", [this] { queues_.left.run_to_the_end(); });
    thread("right", [this] { queues_.right.run_to_the_end(); });
  }
  void audit() override { require(ended_ == 2, "%u of 2 tasks have ended", ended_.load()); }

 private:
  void wait() {
    while (!told_) os::parker::current().park();
    ++ended_;
  }
  void wake() {
    told_ = true;
    waiting_.parker().unpark();
    ++ended_;
  }
  base::atomic<bool> told_{false};
  base::passive_atomic<unsigned> ended_{0};
  shared_queues queues_{2};
  task_on_stack waiting_;
  task_on_stack waking_;
};

TEST(WorkStealingSchedTest, ATaskRunsOnceAtATimeWhereverItIsWoken) {
  EXPECT_TRUE(has_no_failure(explore<task_woken_on_another_queue>({.preemptions = 2})));
}

TEST(WorkStealingSchedTest, ATaskThatSaysThatItParksOnItsOwnStackIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_woken_on_another_queue>(mutant::park_before_switch));
}

// A task that comes from outside while both queues sleep, or are about to, starts another and computes until that has
// run, which only the other queue can do.
class task_that_computes : public scenario {
 public:
  task_that_computes()
      : computing_(
            queues_.left, [](void* self) { static_cast<task_that_computes*>(self)->compute(); }, this),
        started_(
            queues_.left, [](void* self) { static_cast<task_that_computes*>(self)->ran_ = true; }, this) {
    thread("left", [this] { queues_.left.run_to_the_end(); });
    thread("right", [this] { queues_.right.run_to_the_end(); });
    thread("outside", [this] { computing_.make_ready(); });
  }
  void audit() override { require(ran_ && ended_, "a task has not ended"); }

 private:
  void compute() {
    started_.make_ready();
    while (!ran_) base::yield();  // the worker's thread
    ended_ = true;
  }
  base::atomic<bool> ran_{false};
  base::passive_atomic<bool> ended_{false};
  shared_queues queues_{2};
  task_on_stack computing_;
  task_on_stack started_;
};

TEST(WorkStealingSchedTest, WhatATaskStartsWhileItComputesIsTaken) {
  EXPECT_TRUE(has_no_failure(explore<task_that_computes>({.preemptions = 2})));
}

TEST(WorkStealingSchedTest, WhoStartsATaskAndWakesNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_that_computes>(mutant::idle_unseen));
}

// Who waits for it holds up its thread, as a computation does.
class said_once {
 public:
  void say() {
    said_ = 1;
    os::futex_wake_one(said_);
  }
  void wait() {
    while (said_ == 0) os::futex_wait(said_, 0, no_deadline);
    os::futex_wake_one(said_);  // the next that waits
  }

 private:
  base::atomic<std::uint32_t> said_{0};
};

enum class way { outside, outside_first_bound, io };

// Two tasks come from outside for one queue; the first computes until the other has run.
template <way From>
class two_tasks_from_outside : public scenario {
 public:
  two_tasks_from_outside()
      : computing_(
            queues_.left, [](void* self) { static_cast<two_tasks_from_outside*>(self)->compute(); }, this),
        other_(
            queues_.left, [](void* self) { static_cast<two_tasks_from_outside*>(self)->ran_.say(); }, this) {
    if (From == way::outside_first_bound) computing_.bind();
    thread("left", [this] { queues_.left.run_to_the_end(); });
    thread("right", [this] { queues_.right.run_to_the_end(); });
    thread("outside", [this] {
      if (From == way::io) {
        queues_.left.complete(computing_, &other_);
      } else {
        computing_.make_ready();
        other_.make_ready();
      }
    });
  }
  void audit() override { require(ended_, "a task has not ended"); }

 private:
  void compute() {
    ran_.wait();
    ended_ = true;
  }
  said_once ran_;
  base::passive_atomic<bool> ended_{false};
  shared_queues queues_{2};
  task_on_stack computing_;
  task_on_stack other_;
};

TEST(WorkStealingSchedTest, WhatComesFromOutsideForAnOwnerThatComputesIsTaken) {
  EXPECT_TRUE(has_no_failure(explore<two_tasks_from_outside<way::outside>>({.preemptions = 2})));
}

TEST(WorkStealingSchedTest, WhoAddsToABusyInboxAndWakesNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_tasks_from_outside<way::outside>>(mutant::busy_inbox_unseen));
}

TEST(WorkStealingSchedTest, WhatWaitsBehindABoundTaskIsTaken) {
  EXPECT_TRUE(has_no_failure(explore<two_tasks_from_outside<way::outside_first_bound>>({.preemptions = 2})));
}

TEST(WorkStealingSchedTest, WhoRunsABoundTaskFirstAndTellsNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_tasks_from_outside<way::outside_first_bound>>(mutant::bound_task_first));
}

TEST(WorkStealingSchedTest, WhatEndsASleepIsTaken) {
  EXPECT_TRUE(has_no_failure(explore<two_tasks_from_outside<way::io>>({.preemptions = 2})));
}

TEST(WorkStealingSchedTest, WhoTellsOfWhatEndsItsSleepWhileItCountsAsIdleIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_tasks_from_outside<way::io>>(mutant::told_while_idle));
}

TEST(WorkStealingSchedTest, WhoGoesToSleepAndCountsTheOthersTooEarlyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<task_that_computes>(mutant::idle_counted_early));
}

// Two of three queues compute until a task has run that one of them has started: it is for the third.
template <way From>
class two_that_compute : public scenario {
 public:
  two_that_compute()
      : starting_(
            queues_.left,
            [](void* self) {
              static_cast<two_that_compute*>(self)->started_.make_ready();
              static_cast<two_that_compute*>(self)->compute();
            },
            this),
        computing_(
            queues_.right, [](void* self) { static_cast<two_that_compute*>(self)->compute(); }, this),
        started_(
            queues_.left, [](void* self) { static_cast<two_that_compute*>(self)->ran_.say(); }, this) {
    if (From == way::outside) starting_.make_ready();
    thread("left", [this] { queues_.left.run_to_the_end(); });
    thread("right", [this] { queues_.right.run_to_the_end(); });
    thread("third", [this] { queues_.third.run_to_the_end(); });
    if (From == way::io) {
      thread("outside", [this] { starting_.make_ready(); });
      thread("io", [this] { queues_.right.complete(computing_); });
    } else {
      thread("outside", [this] { computing_.make_ready(); });
    }
  }
  void audit() override { require(ended_ == 2, "a task has not ended"); }

 private:
  void compute() {
    ran_.wait();
    ++ended_;
  }
  said_once ran_;
  base::passive_atomic<unsigned> ended_{0};
  shared_queues queues_{3, 3};
  task_on_stack starting_;
  task_on_stack computing_;
  task_on_stack started_;
};

TEST(WorkStealingSchedTest, TheThirdTakesWhatTwoThatComputeLeave) {
  EXPECT_TRUE(has_no_failure(explore<two_that_compute<way::outside>>({.preemptions = 1})));
}

TEST(WorkStealingSchedTest, WhoFindsNothingAndGivesTheSearchBackBeforeItSleepsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_that_compute<way::outside>>(mutant::search_left_early));
}

TEST(WorkStealingSchedTest, WhoStopsSearchingAndDoesNotLookAgainIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_that_compute<way::outside>>(mutant::last_look_forgotten));
}

TEST(WorkStealingSchedTest, TheThirdTakesWhatIsLeftThoughASleepEndsByItself) {
  EXPECT_TRUE(has_no_failure(explore<two_that_compute<way::io>>({.preemptions = 1})));
}

TEST(WorkStealingSchedTest, WhoIsAppointedAfterItsSleepHasEndedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_that_compute<way::io>>(mutant::appointed_late));
}

}  // namespace
}  // namespace larder::sched

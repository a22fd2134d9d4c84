// SPDX-License-Identifier: Apache-2.0
//
// The scheduler finds what it is made to find, and counts what it runs.
#include <array>
#include <cstdio>

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "base/check.h"
#include "base/mutex.h"
#include "os/clock.h"
#include "os/futex.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;

class racy_counter : public scenario {
 public:
  racy_counter() {
    name(count_, "count");
    for (const char* thread_name : {"left", "right"}) {
      thread(thread_name, [this] { count_.store(count_.load() + 1); });
    }
  }
  void audit() override { require(count_ == 2, "2 additions made %d", count_.load()); }

 private:
  base::atomic<int> count_{0};
};

TEST(SchedulerTest, FindsALostAdditionWithOnePreemption) {
  const search_report report = explore<racy_counter>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "2 additions made 1");
  EXPECT_EQ(report.preemptions, 1U);
  EXPECT_NE(report.first_failure->trace.find("load count"), std::string::npos) << report.first_failure->trace;
}

TEST(SchedulerTest, AnotherRunOfAFoundScheduleFailsInTheSameWay) {
  const search_report report = explore<racy_counter>();
  ASSERT_TRUE(report.first_failure);
  const auto factory = [] { return std::make_unique<racy_counter>(); };
  const outcome again = run_schedule(factory, {}, report.first_failure->schedule);
  EXPECT_TRUE(again.failed);
  EXPECT_EQ(again.message, report.first_failure->message);
  EXPECT_FALSE(run_schedule(factory, {}, "0x3").failed) << "one after the other";
}

TEST(SchedulerTest, RandomPrioritiesFindALostAdditionToo) {
  EXPECT_TRUE(has_failure(explore<racy_counter>({.schedules_max = 0})));
}

class sound_counter : public scenario {
 public:
  sound_counter() {
    for (const char* thread_name : {"one", "two", "three"}) {
      thread(thread_name, [this] {
        ++count_;
        ++count_;
      });
    }
  }
  void audit() override { require(count_ == 6, "6 additions made %d", count_.load()); }

 private:
  base::atomic<int> count_{0};
};

TEST(SchedulerTest, FindsNothingWhereThereIsNothing) {
  const search_report report = explore<sound_counter>({.preemptions = unbounded});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
  EXPECT_EQ(report.schedules, 90U) << "6! / (2! 2! 2!): all operations are dependent";
}

template <unsigned steps>
class two_threads_of : public scenario {
 public:
  two_threads_of() {
    thread("left", [this] { run(left_); });
    thread("right", [this] { run(right_); });
  }

 private:
  static void run(base::atomic<unsigned>& own) {
    for (unsigned step = 0; step < steps; ++step) own = step;
  }
  base::atomic<unsigned> left_{0};
  base::atomic<unsigned> right_{0};
};

TEST(SchedulerTest, RunsAsManySchedulesAsThereAreInterleavings) {
  const auto count = [](const search_report& report) {
    EXPECT_TRUE(report.complete);
    return report.schedules;
  };
  const search_options all{.preemptions = unbounded, .reduces = false};
  EXPECT_EQ(count(explore<two_threads_of<1>>(all)), 2U);
  EXPECT_EQ(count(explore<two_threads_of<4>>(all)), 70U);
  EXPECT_EQ(count(explore<two_threads_of<7>>(all)), 3432U);
}

TEST(SchedulerTest, RunsTheSameSchedulesUnderALargeBoundAsUnderNone) {
  const search_report report = explore<two_threads_of<4>>({.preemptions = 100});
  EXPECT_TRUE(report.complete);
  EXPECT_EQ(report.preemptions, 6U) << "LRLRLRLR: the last switch is free, for L has ended";
}

TEST(SchedulerTest, ReductionLeavesOneOrderOfWhatIsIndependent) {
  const search_report report = explore<two_threads_of<7>>({.preemptions = unbounded});
  EXPECT_TRUE(report.complete);
  EXPECT_EQ(report.schedules - report.redundant, 1U);
}

class locks_in_two_orders : public scenario {
 public:
  locks_in_two_orders() {
    name(first_, "first");
    name(second_, "second");
    thread("rising", [this] { hold(first_, second_); });
    thread("falling", [this] { hold(second_, first_); });
  }

 private:
  static void hold(base::system_mutex& outer, base::system_mutex& inner) {
    const std::lock_guard outer_locked(outer);
    const std::lock_guard inner_locked(inner);
  }
  base::system_mutex first_;
  base::system_mutex second_;
};

TEST(SchedulerTest, FindsADeadlockByLockOrder) {
  const search_report report = explore<locks_in_two_orders>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "deadlock: rising waits for second, falling waits for first");
}

// Looks at the flag before it says that it sleeps.
class late_sleeper : public scenario {
 public:
  late_sleeper() {
    thread("sleeper", [this] {
      while (!ready_) {
        asleep_ = 1;
        os::futex_wait(asleep_, 1, no_deadline);
      }
    });
    thread("waker", [this] {
      ready_ = true;
      if (asleep_.exchange(0) == 1) os::futex_wake_one(asleep_);
    });
  }

 private:
  base::atomic<std::uint32_t> asleep_{0};
  base::atomic<bool> ready_{false};
};

TEST(SchedulerTest, FindsALostWakeUp) {
  const search_report report = explore<late_sleeper>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "deadlock: sleeper sleeps and nobody wakes it");
}

TEST(SchedulerTest, WakeUpForNoReasonDoesNotHideALostOne) {
  EXPECT_TRUE(has_failure(explore<late_sleeper>({.system = {.spurious_wakes = 1}})));
}

class sleeper_with_deadline : public scenario {
 public:
  sleeper_with_deadline() {
    thread("sleeper", [this] {
      const time_point deadline = os::now() + 1h;
      in_time_ = os::futex_wait(word_, 0, deadline);
      require(in_time_ || os::now() >= deadline, "it woke before its deadline");
    });
    thread("waker", [this] {
      word_ = 1;
      os::futex_wake_one(word_);
    });
  }
  void audit() override { require(in_time_, "the deadline passed"); }

 private:
  base::atomic<std::uint32_t> word_{0};
  bool in_time_ = false;
};

TEST(SchedulerTest, DeadlineMayPassBeforeTheWakeUp) {
  const search_report report = explore<sleeper_with_deadline>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "the deadline passed");
}

// A stack that pops one element by compare-and-swap. Who holds an element marks it.
class pop_one_stack : public scenario {
 public:
  pop_one_stack() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) push(i);
    thread("thief", [this] { taken(pop()); });
    thread("owner", [this] {
      const std::size_t top = pop();
      taken(pop());
      push(top);
    });
  }
  void audit() override {
    for (std::size_t index = pop(); index != none; index = pop()) taken(index);
  }

 private:
  static constexpr std::size_t none = 99;
  struct node {
    base::atomic<std::size_t> next{none};
    bool held = false;
  };
  void push(std::size_t index) {
    std::size_t head = head_;
    do nodes_[index].next = head;
    while (!head_.compare_exchange_weak(head, index));
  }
  std::size_t pop() {
    std::size_t head = head_;
    while (head != none && !head_.compare_exchange_weak(head, nodes_[head].next)) {
    }
    return head;
  }
  void taken(std::size_t index) {
    if (index == none) return;
    require(!nodes_[index].held, "element %zu was handed out twice", index);
    nodes_[index].held = true;
  }
  std::array<node, 3> nodes_;
  base::atomic<std::size_t> head_{none};
};

TEST(SchedulerTest, FindsAnElementThatWasTakenAndCameBack) {
  const search_report report = explore<pop_one_stack>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "element 1 was handed out twice");
}

class endless_wait : public scenario {
 public:
  endless_wait() {
    thread("spinner", [this] {
      while (!done_) base::schedule::yield();
    });
    thread("other", [this] { started_ = true; });
  }

 private:
  base::atomic<bool> done_{false};
  base::atomic<bool> started_{false};
};

TEST(SchedulerTest, EndlessSpinningIsAFailure) {
  const search_report report = explore<endless_wait>({.system = {.steps_max = 200}});
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "livelock: no end within 200 steps");
}

class patient_spinner : public scenario {
 public:
  patient_spinner() {
    thread("spinner", [this] {
      while (!done_) base::schedule::yield();
    });
    thread("other", [this] {
      started_ = true;
      done_ = true;
    });
  }

 private:
  base::atomic<bool> done_{false};
  base::atomic<bool> started_{false};
};

TEST(SchedulerTest, SpinningThatYieldsLetsOthersFinish) {
  const search_report report = explore<patient_spinner>({.preemptions = unbounded, .system = {.steps_max = 200}});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

class failed_check : public scenario {
 public:
  failed_check() {
    thread("checker", [this] { LARDER_CHECK(value_ == 0, "value is %d", value_.load()); });
    thread("writer", [this] { value_ = 7; });
  }

 private:
  base::atomic<int> value_{0};
};

TEST(SchedulerTest, FailedCheckOfTheCodeUnderTestEndsTheScheduleAndNotTheProcess) {
  const search_report report = explore<failed_check>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_NE(report.first_failure->message.find("value is 7"), std::string::npos) << report.first_failure->message;
}

class wild_access : public scenario {
 public:
  wild_access() {
    thread("user", [this] { require(*pointer_.load() == 7, "a wrong value was read"); });
    thread("remover", [this] { pointer_ = nullptr; });
  }

 private:
  int value_ = 7;
  base::atomic<volatile int*> pointer_{&value_};
};

TEST(SchedulerTest, WildAccessEndsTheScheduleAndNotTheProcess) {
  const search_report report = explore<wild_access>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.first_failure->message, "crash: a wild access to memory");
}

int schedules_so_far = 0;

class changing_code : public scenario {
 public:
  changing_code() {
    const int more = schedules_so_far++;
    thread("left", [this, more] {
      for (int i = 0; i <= more; ++i) ++value_;
    });
    thread("right", [this] { ++value_; });
    if (more > 0) thread("third", [this] { ++value_; });
  }

 private:
  base::atomic<int> value_{0};
};

TEST(SchedulerTest, CodeThatIsNotDeterministicIsReported) {
  const search_report report = explore<changing_code>({.preemptions = 0});
  ASSERT_TRUE(report.first_failure);
  EXPECT_EQ(report.first_failure->message, "not deterministic: a choice had other options than before");
}

// Not a promise: what it costs. Three threads of five operations each.
TEST(SchedulerTest, SpeedIsPrinted) {
  class three_threads : public scenario {
   public:
    three_threads() {
      for (const char* thread_name : {"one", "two", "three"}) {
        thread(thread_name, [this] {
          for (int i = 0; i < 5; ++i) ++count_;
        });
      }
    }

   private:
    base::atomic<int> count_{0};
  };
  const search_report report = explore<three_threads>({.preemptions = 4, .random_schedules = 0});
  EXPECT_TRUE(has_no_failure(report));
  std::printf("three threads of five operations: %.0f schedules/s\n",
              static_cast<double>(report.schedules) / report.seconds);
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// Who is cancelled while it is told: joins, queues and groups. Simulated threads take the place of tasks: a request
// reaches them where their parker says.
#include <exception>
#include <memory>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/semaphore.h>
#include <larder/task_group.h>

#include "base/yield.h"
#include "os/parker.h"
#include "task/completion.h"
#include "tests/sched/deaf_parker.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using base::mutant;
using task_layer::completion;

// A flow of control that can be cancelled, from its own thread's begin to its end; what others know of it.
class cancellable {
 public:
  // Runs `body` on the calling thread. True if it was cut short.
  template <typename Body>
  bool is_cut_short(Body body) {
    os::parker& self = os::parker::current();
    shared_.begin(nullptr, self, nullptr);
    self.cancel = &shared_.cancellation;
    ready_ = true;
    bool cut_short = false;
    try {
      body();
    } catch (const task::cancelled&) {
      cut_short = true;
    }
    self.cancel = nullptr;
    return cut_short;
  }
  // Unless it has not begun.
  void cancel() {
    if (ready_) shared_.cancel();
  }
  bool has_request_left() const { return shared_.cancellation.is_pending(); }

 private:
  completion shared_;
  base::atomic<bool> ready_{false};
};

// One waits for the end of a task and is cancelled meanwhile; if it is cut short it waits again.
class joiner_and_canceller : public scenario {
 public:
  joiner_and_canceller() {
    ending_.begin(nullptr, nobody_, nullptr);
    thread("joiner", [this] {
      const bool cut_short = joiner_.is_cut_short([this] { ending_.wait(true); });
      if (cut_short) ending_.wait(false);
      require(ending_.ended(), "a join returned before the end");
      require(result_ == 7, "what the task wrote is not seen");
      require(!cut_short || !joiner_.has_request_left(), "a request that was heeded is left");
    });
    thread("task", [this] {
      result_ = 7;
      ending_.finish();
    });
    thread("canceller", [this] { joiner_.cancel(); });
  }

 private:
  deaf_parker nobody_;
  completion ending_;
  cancellable joiner_;
  base::atomic<int> result_{0};
};

TEST(CancelSchedTest, AJoinEndsWithTheTaskOrTheRequest) {
  const search_report report = explore<joiner_and_canceller>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(CancelSchedTest, AJoinerThatIsCutShortAndLeavesItselfBehindIsCaught) {
  EXPECT_TRUE(mutant_is_killed<joiner_and_canceller>(mutant::joiner_left_behind));
}

// The request is the only thing that ends the wait.
class waiter_and_canceller : public scenario {
 public:
  waiter_and_canceller() {
    thread("waiter", [this] {
      const bool cut_short = waiter_.is_cut_short([this] {
        began_ = true;
        units_.acquire();
      });
      require(cut_short, "a wait that nobody can end has returned");
    });
    thread("canceller", [this] {
      while (!began_) base::yield();
      waiter_.cancel();
    });
  }
  void audit() override { require(!units_.try_acquire(), "a unit came from nowhere"); }

 private:
  semaphore units_{0};
  cancellable waiter_;
  base::atomic<bool> began_{false};
};

TEST(CancelSchedTest, NoRequestIsLost) {
  const search_report report = explore<waiter_and_canceller>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(CancelSchedTest, ARequestThatComesAfterItsWakeIsCaught) {
  EXPECT_TRUE(mutant_is_killed<waiter_and_canceller>(mutant::cancel_after_wake));
}

// A unit is given while the first of two that wait for it is cancelled: it goes to one of them, or is left.
class unit_and_canceller : public scenario {
 public:
  unit_and_canceller() {
    thread("cancelled", [this] {
      if (!first_.is_cut_short([this] { units_.acquire(); })) ++got_;
    });
    thread("canceller", [this] { first_.cancel(); });
    thread("giver", [this] { units_.release(); });
  }
  void audit() override {
    const bool left = units_.try_acquire();
    require(got_ + (left ? 1U : 0U) == 1, "of one unit %u were got, and one is %s", got_.load(),
            left ? "left" : "not left");
  }

 private:
  semaphore units_{0};
  cancellable first_;
  base::passive_atomic<unsigned> got_{0};
};

TEST(CancelSchedTest, WhatIsGivenToACancelledWaiterIsNotLost) {
  const search_report report = explore<unit_and_canceller>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(CancelSchedTest, ARequestThatDropsWhatWasGivenIsCaught) {
  EXPECT_TRUE(mutant_is_killed<unit_and_canceller>(mutant::cancel_drops_grant));
}

// Two tasks of a group: one throws, the other waits until it is cancelled for it. The group goes as soon as the wait
// for both returns.
class group_of_two : public scenario {
 public:
  group_of_two() {
    enter(failing_);
    enter(waiting_);
    thread("waits for the group", [this] {
      bool thrown = false;
      try {
        group_->wait();
      } catch (int) {
        thrown = true;
      }
      require(left_ == 2, "%u of 2 had ended when the wait returned", left_.load());
      require(thrown, "what a task threw is lost");
      require(group_->size() == 0, "%zu are left in the group", group_->size());
      gone_ = true;
    });
    thread("throws", [this] {
      failing_.thrown = std::make_exception_ptr(1);
      leave(failing_);
    });
    thread("is cancelled", [this] {
      while (!waiting_.cancellation.is_pending()) base::yield();
      leave(waiting_);
    });
  }

 private:
  deaf_parker deaf_;

  void enter(completion& child) {
    child.begin(nullptr, deaf_, &*group_);
    group_->enter(child);
  }
  void leave(completion& child) {
    ++left_;
    require(!gone_, "a group that has gone is left");
    group_->leave(child);
  }

  std::unique_ptr<task_layer::group_core> group_ = std::make_unique<task_layer::group_core>();
  completion failing_;
  completion waiting_;
  base::passive_atomic<unsigned> left_{0};
  base::passive_atomic<bool> gone_{false};
};

TEST(CancelSchedTest, AGroupEndsWithItsLastTaskAndItsFirstFailure) {
  const search_report report = explore<group_of_two>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(CancelSchedTest, AGroupThatIsToldEarlyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<group_of_two>(mutant::group_told_early));
}

TEST(CancelSchedTest, AFailureThatCancelsNobodyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<group_of_two>(mutant::failure_cancels_nobody));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// Mutex, shared mutex, condition and semaphore, over the simulated threads' parkers.
#include <chrono>
#include <cstdint>
#include <mutex>
#include <shared_mutex>

#include <gtest/gtest.h>

#include <larder/semaphore.h>
#include <larder/sync.h>

#include "os/clock.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// Who is inside something that excludes. What it holds is atomic only to be a scheduling point.
class occupancy {
 public:
  void write() {
    require(++writers_ == 1 && readers_ == 0, "a writer is not alone");
    --writers_;
  }
  void read() {
    ++readers_;
    require(writers_ == 0, "a reader is with a writer");
    --readers_;
  }

 private:
  base::atomic<int> writers_{0};
  base::atomic<int> readers_{0};
};

class three_lockers : public scenario {
 public:
  three_lockers() {
    thread("first", [this] { lock_and_unlock(); });
    thread("second", [this] { lock_and_unlock(); });
    thread("impatient", [this] {
      if (mutex_.try_lock_until(os::now() + 1h)) {
        inside_.write();
        mutex_.unlock();
      }
    });
  }
  void audit() override {
    require(mutex_.try_lock(), "the mutex is left locked");
    mutex_.unlock();
  }

 private:
  void lock_and_unlock() {
    const std::lock_guard<mutex> held(mutex_);
    inside_.write();
  }
  mutex mutex_;
  occupancy inside_;
};

TEST(SyncSchedTest, MutexIsHandedOverToOneAndLeftFree) {
  const search_report report = explore<three_lockers>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(SyncSchedTest, MutexThatIsLeftFreeWhenItIsHandedOverIsCaught) {
  EXPECT_TRUE(mutant_is_killed<three_lockers>(mutant::handed_over_unlocked));
}

TEST(SyncSchedTest, DeadlineThatDropsAMutexIsCaught) {
  EXPECT_TRUE(mutant_is_killed<three_lockers>(mutant::deadline_drops_grant));
}

// A writer that may give up stands between two readers.
class writer_between_readers : public scenario {
 public:
  writer_between_readers() {
    thread("reader", [this] { read(); });
    thread("writer", [this] {
      if (!mutex_.try_lock_until(os::now() + 1h)) return;
      inside_.write();
      mutex_.unlock();
    });
    thread("other reader", [this] { read(); });
  }
  void audit() override {
    require(mutex_.try_lock(), "the shared mutex is left locked");
    mutex_.unlock();
  }

 private:
  void read() {
    const std::shared_lock<shared_mutex> held(mutex_);
    inside_.read();
  }
  shared_mutex mutex_;
  occupancy inside_;
};

TEST(SyncSchedTest, SharedMutexExcludesAndLosesNobody) {
  const search_report report = explore<writer_between_readers>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(SyncSchedTest, WriterThatJoinsReadersIsCaught) {
  EXPECT_TRUE(mutant_is_killed<writer_between_readers>(mutant::writer_joins_readers));
}

// The first reader stays until the second is in, which stands behind the writer: only its deadline lets them go on.
class writer_that_must_give_up : public scenario {
 public:
  writer_that_must_give_up() {
    mutex_.lock_shared();
    thread("writer", [this] {
      if (mutex_.try_lock_until(os::now() + 1h)) mutex_.unlock();
    });
    thread("reader", [this] {
      const std::shared_lock<shared_mutex> held(mutex_);
      mutex_.unlock_shared();  // the first reader's
    });
  }

 private:
  shared_mutex mutex_;
};

TEST(SyncSchedTest, WriterThatGivesUpLetsTheReadersBehindItEnter) {
  EXPECT_TRUE(no_schedule_fails<writer_that_must_give_up>({.preemptions = 4}));
}

TEST(SyncSchedTest, WriterThatForgetsTheReadersBehindItIsCaught) {
  EXPECT_TRUE(mutant_is_killed<writer_that_must_give_up>(mutant::leaver_forgets_others));
}

// A large request that may give up, a small one behind it, and units that come one by one.
class impatient_acquirer : public scenario {
 public:
  impatient_acquirer() {
    thread("impatient", [this] {
      if (!semaphore_.try_acquire_until(os::now() + 1h, 3)) return;
      semaphore_.release(3);
    });
    thread("patient", [this] {
      semaphore_.acquire(2);
      semaphore_.release(2);
    });
    thread("releaser", [this] {
      semaphore_.release(1);
      semaphore_.release(2);
    });
  }
  void audit() override {
    require(semaphore_.units_free() == 3, "%llu of 3 units are left",
            static_cast<unsigned long long>(semaphore_.units_free()));
  }

 private:
  semaphore semaphore_;
};

TEST(SyncSchedTest, SemaphoreGrantAndDeadlineLoseNoUnit) {
  const search_report report = explore<impatient_acquirer>({.preemptions = 2, .system = {.spurious_wakes = 1}});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(SyncSchedTest, DeadlineThatDropsUnitsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<impatient_acquirer>(mutant::deadline_drops_grant));
}

// Two units are there and a third never comes, so that the small request goes on only when the large one leaves.
class acquirer_that_must_give_up : public scenario {
 public:
  acquirer_that_must_give_up() {
    thread("large", [this] { require(!semaphore_.try_acquire_until(os::now() + 1h, 3), "3 of 2 units were taken"); });
    thread("small", [this] { semaphore_.acquire(2); });
  }
  void audit() override { require(semaphore_.units_free() == 0, "the small request got nothing"); }

 private:
  semaphore semaphore_{2};
};

TEST(SyncSchedTest, RequestThatGivesUpLetsTheOneBehindItGoOn) {
  const search_report report = explore<acquirer_that_must_give_up>({.preemptions = unbounded});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(SyncSchedTest, RequestThatForgetsTheOneBehindItIsCaught) {
  EXPECT_TRUE(mutant_is_killed<acquirer_that_must_give_up>(mutant::leaver_forgets_others));
}

// A flag under a mutex, a waiter with a deadline and one without, one notification for each.
class notified_and_timed_out : public scenario {
 public:
  notified_and_timed_out() {
    thread("impatient", [this] {
      std::unique_lock<mutex> held(mutex_);
      changed_.wait_until(held, os::now() + 1h, [this] { return set_; });
      require(held.owns_lock(), "the mutex was not taken again");
    });
    thread("patient", [this] {
      std::unique_lock<mutex> held(mutex_);
      changed_.wait(held, [this] { return set_; });
      changed_.notify_one();
    });
    thread("notifier", [this] {
      const std::lock_guard<mutex> held(mutex_);
      set_ = true;
      changed_.notify_all();
    });
  }
  void audit() override {
    require(mutex_.try_lock(), "the mutex is left locked");
    mutex_.unlock();
  }

 private:
  mutex mutex_;
  condition changed_;
  bool set_ = false;  // guarded by mutex_
};

TEST(SyncSchedTest, ConditionLosesNoNotification) {
  const search_report report = explore<notified_and_timed_out>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

}  // namespace
}  // namespace larder::sched

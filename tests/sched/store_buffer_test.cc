// SPDX-License-Identifier: Apache-2.0
//
// Store buffers break what they break on x86, and nothing else.
#include "tests/sched/store_buffer.h"

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "os/cpu_sequence.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

const search_options everything{.preemptions = unbounded, .system = {.store_delays = 2}};

// Each raises its flag, then looks at the other's.
template <std::memory_order order>
class two_flags : public scenario {
 public:
  two_flags() {
    thread("left", [this] {
      left_.store(true, order);
      left_saw_ = right_;
    });
    thread("right", [this] {
      right_.store(true, order);
      right_saw_ = left_;
    });
  }
  void audit() override { require(left_saw_ || right_saw_, "neither saw the other's flag"); }

 private:
  base::atomic<bool> left_{false};
  base::atomic<bool> right_{false};
  bool left_saw_ = false;
  bool right_saw_ = false;
};

TEST(StoreBufferTest, WeakStoresMissEachOther) {
  EXPECT_TRUE(has_failure(explore<two_flags<base::memory_order_release>>(everything)));
  EXPECT_TRUE(no_schedule_fails<two_flags<base::memory_order_release>>()) << "not without store buffers";
}

TEST(StoreBufferTest, SequentiallyConsistentStoresDoNot) {
  const search_report report = explore<two_flags<base::memory_order_seq_cst>>(everything);
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

// Stores leave their buffer in order, and their own thread sees them at once.
class message : public scenario {
 public:
  message() {
    thread("writer", [this] {
      data_.store(7, base::memory_order_relaxed);
      ready_.store(true, base::memory_order_release);
      require(data_.load(base::memory_order_relaxed) == 7, "a thread does not see its own store");
    });
    thread("reader", [this] {
      if (ready_.load(base::memory_order_acquire)) require(data_ == 7, "the flag came before the data");
    });
  }
  void audit() override { require(ready_ && data_ == 7, "a store never reached memory"); }

 private:
  base::atomic<int> data_{0};
  base::atomic<bool> ready_{false};
};

TEST(StoreBufferTest, StoresReachMemoryInTheirOrder) {
  const search_report report = explore<message>(everything);
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

// The commit of a sequence is a plain store: seen late by other CPUs, but not later than a fence.
template <bool fences>
class late_commit : public scenario {
 public:
  late_commit() {
    thread(
        "owner",
        [this] {
          while (os::compare_store(0, gate_, 0, word_, 0, 1) == os::sequence_result::restarted && gate_ == 0U) {
          }
          committed_ = true;
          after_commit_ = other_;
        },
        0);
    thread(
        "other",
        [this] {
          other_ = true;
          if (fences) os::fence_sequences();
          other_saw_ = word_;
        },
        1);
  }
  void audit() override {
    require(!committed_ || after_commit_ || other_saw_ == 1, "neither saw what the other did before");
  }

 private:
  base::atomic<std::uint64_t> gate_{0};
  base::atomic<std::uint64_t> word_{0};
  base::atomic<bool> other_{false};
  bool committed_ = false;
  bool after_commit_ = false;
  std::uint64_t other_saw_ = 0;
};

TEST(StoreBufferTest, CommitOfASequenceIsSeenLateButNotAfterAFence) {
  const search_options delays{.preemptions = 4,
                              .system = {.store_delays = 1, .cpus = 2, .sequences = os::sequence_mode::concurrency_id}};
  EXPECT_TRUE(has_failure(explore<late_commit<false>>(delays)));
  EXPECT_TRUE(no_schedule_fails<late_commit<true>>(delays));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// Handles that go from CPU to CPU: stealing, inboxes, shared and biased lists, threads that are moved, threads without
// restartable sequences.
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/handle_table.h>

#include "base/atomic.h"
#include "os/cpu_sequence.h"
#include "tests/support/one_cpu.h"

namespace larder {
namespace {

class HandleTableCpuTest : public testing::Test {
 protected:
  memory_budget budget{"test"};
  std::array<int, 2000> numbers{};

  ~HandleTableCpuTest() override { EXPECT_EQ(budget.used(), bytes{}); }

  // Runs on another CPU than the calling thread, which goes on when it has ended. True if it had another list all the
  // time: a thread that is preempted may find its number given to another.
  template <typename Body>
  bool elsewhere(Body&& body) {
    base::atomic<bool> done{false};
    bool apart = false;
    const int here = os::sequence_cpu();
    std::thread other([&] {
      tests::stay_on(cpus_.back());
      const int there = os::sequence_cpu();
      body();
      apart = there != here && there == os::sequence_cpu();
      done = true;
    });
    // Running, so that the other thread is not given this thread's number.
    while (!done) continue;
    other.join();
    return apart && here == os::sequence_cpu();
  }
  const std::vector<int>& cpus() const { return cpus_; }
  void SetUp() override { tests::stay_on(cpus_.front()); }

 private:
  const tests::stays_on_one_cpu pinned_;
  const std::vector<int> cpus_ = tests::allowed_cpus(pinned_.before());
};

// KF-16, KF-25
TEST_F(HandleTableCpuTest, WhatWasErasedElsewhereIsInsertedAgainHere) {
  handle_table<int> table("passed on", {.limit = 1000, .budget = &budget});
  for (int round = 0; round < 20; ++round) {
    std::vector<handle> made;
    for (std::size_t i = 0; i < 1000; ++i) made.push_back(table.insert(&numbers[i]));
    EXPECT_TRUE(made.back());
    EXPECT_FALSE(table.insert(&numbers[0]));
    elsewhere([&] {
      for (const handle each : made) EXPECT_TRUE(table.erase(each));
    });
    EXPECT_EQ(table.size(), 0U);
    table.audit();
  }
  EXPECT_EQ(table.stats().inserts, 20'000U);
  EXPECT_EQ(table.stats().erases, 20'000U);
}

// KF-26
TEST_F(HandleTableCpuTest, AFullListIsSharedWithAnEmptyOne) {
  handle_table<int> table("shared out", {.limit = 200, .budget = &budget});
  std::vector<handle> made;
  for (std::size_t i = 0; i < 200; ++i) made.push_back(table.insert(&numbers[i]));
  for (const handle each : made) EXPECT_TRUE(table.erase(each));
  const bool apart = elsewhere([&] {
    for (std::size_t i = 0; i < 200; ++i) EXPECT_TRUE(table.insert(&numbers[i])) << i;
    EXPECT_FALSE(table.insert(&numbers[0]));
  });
  EXPECT_EQ(table.size(), 200U);
  if (apart) {
    EXPECT_GT(table.stats().steals, 0U);
    EXPECT_LE(table.stats().steals, 10U);  // shares, not entries
  }
  table.audit();
}

// A stranger makes a list shared; its own CPU gets it back for itself when it has been alone for long.
TEST_F(HandleTableCpuTest, AListIsBiasedAgain) {
  if (os::sequences() == os::sequence_mode::sharded) GTEST_SKIP() << os::sequences_description();
  if (cpus().size() < 2) GTEST_SKIP() << "there is one CPU";
  handle_table<int> table("biased", {.limit = 10, .budget = &budget});
  const auto pass_some_on = [&] {
    for (int i = 0; i < 50; ++i) {
      const handle made = table.insert(&numbers[0]);
      elsewhere([&] { EXPECT_TRUE(table.erase(made)); });
    }
    return table.stats().shared;
  };
  // Until every list that these two CPUs can have is shared.
  std::uint64_t shared = pass_some_on();
  EXPECT_GE(shared, 1U);
  for (std::uint64_t more = pass_some_on(); more > shared; more = pass_some_on()) shared = more;
  for (int i = 0; i < 200'000; ++i) EXPECT_TRUE(table.erase(table.insert(&numbers[0])));
  EXPECT_GT(pass_some_on(), shared);
  table.audit();
}

// KF-17: threads that are moved while they insert and erase.
TEST_F(HandleTableCpuTest, NothingIsLostWhileThreadsAreMoved) {
  handle_table<int> table("moved", {.limit = 300, .budget = &budget});
  base::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::vector<pthread_t> natives;
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<handle> mine;
      for (std::size_t i = 0; !stop; ++i) {
        int* object = &numbers[thread * 500 + i % 500];
        if (const handle made = table.insert(object)) {
          ASSERT_EQ(table.find(made), object);
          mine.push_back(made);
        }
        if (mine.size() < 70) continue;
        for (const handle each : mine) ASSERT_TRUE(table.erase(each));
        mine.clear();
      }
      for (const handle each : mine) ASSERT_TRUE(table.erase(each));
    });
    natives.push_back(threads.back().native_handle());
  }
  for (int round = 0; round < 3000; ++round) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(cpus()[static_cast<std::size_t>(round) / 4 % cpus().size()]), &set);
    pthread_setaffinity_np(natives[static_cast<std::size_t>(round % 4)], sizeof set, &set);
    if (round % 500 == 0) table.shrink();
  }
  stop = true;
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.stats().inserts, table.stats().erases);
  table.audit();
}

// KF-18: a filter of system calls may keep the C library from registering a new thread.
TEST_F(HandleTableCpuTest, AThreadWithoutSequencesDoesTheSame) {
  if (os::sequences() == os::sequence_mode::sharded) GTEST_SKIP() << os::sequences_description();
  handle_table<int> table("unregistered", {.limit = 300, .budget = &budget});
  const handle before = table.insert(&numbers[0]);
  std::vector<handle> made;
  std::thread([&] {
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    ASSERT_EQ(::syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0);
    ASSERT_EQ(os::sequence_cpu(), -1);
    {
      const pinned<int> held = table.find_pinned(before);
      EXPECT_EQ(held.get(), &numbers[0]);
    }
    EXPECT_EQ(table.take(before), &numbers[0]);
    EXPECT_FALSE(table.erase(before));
    for (std::size_t i = 0; i < 300; ++i) made.push_back(table.insert(&numbers[i]));
    EXPECT_TRUE(made.back());
    EXPECT_FALSE(table.insert(&numbers[0]));
    for (std::size_t i = 0; i < 150; ++i) EXPECT_TRUE(table.erase(made[i]));
  }).join();
  table.audit();
  EXPECT_EQ(table.size(), 150U);
  for (std::size_t i = 150; i < 300; ++i) EXPECT_TRUE(table.erase(made[i]));
  for (std::size_t i = 0; i < 300; ++i) EXPECT_TRUE(table.insert(&numbers[i]));
  table.audit();
}

// KF-19
TEST_F(HandleTableCpuTest, TheActiveModeIsSaid) {
  const handle_table<int> table("mode", {.limit = 1, .budget = &budget});
  EXPECT_STREQ(table.active_mode(), os::sequences_description());
}

}  // namespace
}  // namespace larder

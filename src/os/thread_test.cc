// SPDX-License-Identifier: Apache-2.0
#include "os/thread.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::os {
namespace {

class ThreadTest : public testing::Test {
 protected:
  void TearDown() override { fault::disarm(); }
};

TEST_F(ThreadTest, RunsItsBodyUnderItsName) {
  std::string name;
  auto started = thread::start("larder/a-name-too-long", [&] {
    char text[32] = {};
    ::pthread_getname_np(::pthread_self(), text, sizeof text);
    name = text;
  });
  ASSERT_TRUE(started);
  EXPECT_TRUE(started->joinable());
  started->join();
  EXPECT_FALSE(started->joinable());
  EXPECT_EQ(name, "larder/a-name-t");
}

TEST_F(ThreadTest, BlocksSignalsButItsOwnFaults) {
  sigset_t before;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  sigset_t within;
  auto started = thread::start("signals", [&] { ::pthread_sigmask(SIG_SETMASK, nullptr, &within); });
  ASSERT_TRUE(started);
  started->join();
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGPIPE, SIGCHLD}) EXPECT_EQ(::sigismember(&within, number), 1);
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT}) EXPECT_EQ(::sigismember(&within, number), 0);
  sigset_t after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int number = 1; number < 32; ++number) {
    EXPECT_EQ(::sigismember(&before, number), ::sigismember(&after, number)) << "the starter's own signal " << number;
  }
}

TEST_F(ThreadTest, HasTheStackAskedFor) {
  std::size_t size = 0;
  auto started = thread::start(
      "stack",
      [&] {
        pthread_attr_t attributes;
        void* address = nullptr;
        ASSERT_EQ(::pthread_getattr_np(::pthread_self(), &attributes), 0);
        ::pthread_attr_getstack(&attributes, &address, &size);
        ::pthread_attr_destroy(&attributes);
      },
      256_KiB);
  ASSERT_TRUE(started);
  started->join();
  EXPECT_GE(size, 256U << 10);
  EXPECT_LE(size, 1U << 20) << "not the system's default of some megabytes";
}

TEST_F(ThreadTest, FailureToStartIsAnErrorAndDropsTheBody) {
  const auto witness = std::make_shared<int>(0);
  fault::arm(call::thread_create, 1, EAGAIN);
  const auto refused = thread::start("refused", [witness] { ADD_FAILURE() << "ran"; });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), error_from(EAGAIN));
  EXPECT_EQ(witness.use_count(), 1);
}

TEST_F(ThreadTest, BodyIsGoneOnceJoined) {
  const auto witness = std::make_shared<int>(0);
  auto started = thread::start("witness", [witness] {});
  ASSERT_TRUE(started);
  started->join();
  EXPECT_EQ(witness.use_count(), 1);
}

TEST_F(ThreadTest, MovesWithItsThread) {
  auto started = thread::start("moved", [] {});
  ASSERT_TRUE(started);
  thread first = *std::move(started);
  EXPECT_FALSE(started->joinable());
  thread second;
  second = std::move(first);
  EXPECT_FALSE(first.joinable());
  second.join();
}

TEST(ThreadDeathTest, DestroyedOrAssignedWhileRunningDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const auto started = thread::start("left", [] {});
        (void)started;
      },
      "destroyed without a join");
  EXPECT_DEATH(
      {
        auto started = thread::start("over", [] {});
        *started = thread();
      },
      "assigned over");
  EXPECT_DEATH(thread().join(), "does not run");
}

}  // namespace
}  // namespace larder::os

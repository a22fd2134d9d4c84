// SPDX-License-Identifier: Apache-2.0
#include "os/futex.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "os/clock.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

TEST(FutexTest, ReturnsAtOnceWhenTheWordDiffers) {
  base::atomic<std::uint32_t> word{1};
  EXPECT_TRUE(futex_wait(word, 0, no_deadline));
  EXPECT_TRUE(futex_wait(word, 0, now() + 1h));
}

TEST(FutexTest, SleepsUntilTheDeadlineAndNotLess) {
  base::atomic<std::uint32_t> word{0};
  const time_point deadline = now() + 20ms;
  while (futex_wait(word, 0, deadline)) {
  }
  EXPECT_GE(now(), deadline);
}

TEST(FutexTest, DeadlineThatHasPassedReturnsAtOnce) {
  base::atomic<std::uint32_t> word{0};
  EXPECT_FALSE(futex_wait(word, 0, now() - 1s));
  EXPECT_FALSE(futex_wait(word, 0, time_point{}));
  EXPECT_FALSE(futex_wait(word, 0, time_point{} - 1h)) << "before the clock's beginning";
}

TEST(FutexTest, WakeEndsTheSleep) {
  base::atomic<std::uint32_t> word{0};
  std::thread waker([&] {
    std::this_thread::sleep_for(10ms);
    word = 1;
    futex_wake_one(word);
  });
  while (word == 0) EXPECT_TRUE(futex_wait(word, 0, no_deadline));
  waker.join();
}

}  // namespace
}  // namespace larder::os

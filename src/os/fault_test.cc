// SPDX-License-Identifier: Apache-2.0
#include "os/fault.h"

#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace larder::os {
namespace {

class FaultTest : public testing::Test {
 protected:
  void TearDown() override { fault::disarm(); }
};

TEST_F(FaultTest, NothingFailsUnlessArmed) {
  EXPECT_FALSE(fault::fires(call::read));
  fault::arm(call::read, 1, EIO);
  fault::disarm();
  EXPECT_FALSE(fault::fires(call::read));
}

TEST_F(FaultTest, OnlyTheNthUseOfTheNamedCallFails) {
  fault::arm(call::read, 3, EIO);
  EXPECT_FALSE(fault::fires(call::read));
  EXPECT_FALSE(fault::fires(call::write));
  EXPECT_FALSE(fault::fires(call::read));
  EXPECT_FALSE(fault::fired());
  errno = 0;
  EXPECT_TRUE(fault::fires(call::read));
  EXPECT_EQ(errno, EIO);
  EXPECT_TRUE(fault::fired());
  EXPECT_FALSE(fault::fires(call::read));
  EXPECT_EQ(fault::uses(), 4U) << "uses of other calls are not counted";
}

TEST_F(FaultTest, FromThenOnEveryUseFails) {
  fault::arm(call::send, 2, EPIPE, true);
  EXPECT_FALSE(fault::fires(call::send));
  for (int i = 0; i < 5; ++i) {
    errno = 0;
    EXPECT_TRUE(fault::fires(call::send));
    EXPECT_EQ(errno, EPIPE);
  }
}

TEST_F(FaultTest, AnyCountsEveryCall) {
  fault::arm(call::any, 3, ENOMEM);
  EXPECT_FALSE(fault::fires(call::map));
  EXPECT_FALSE(fault::fires(call::open));
  EXPECT_TRUE(fault::fires(call::send));
  EXPECT_FALSE(fault::fires(call::map));
  EXPECT_EQ(fault::uses(), 4U);
}

TEST_F(FaultTest, ArmingStartsAfresh) {
  fault::arm(call::map, 1, ENOMEM);
  EXPECT_TRUE(fault::fires(call::map));
  fault::arm(call::map, 2, EAGAIN);
  EXPECT_FALSE(fault::fired());
  EXPECT_EQ(fault::uses(), 0U);
  EXPECT_FALSE(fault::fires(call::map));
  EXPECT_TRUE(fault::fires(call::map));
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(FaultTest, OneUseAmongManyThreadsFails) {
  fault::arm(call::map, 1'000, ENOMEM);
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int use = 0; use < 1'000; ++use) failures += fault::fires(call::map) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 1);
  EXPECT_EQ(fault::uses(), 4'000U);
}

TEST_F(FaultTest, PlanMayChangeWhileThreadsRun) {
  std::atomic<bool> stop{false};
  std::thread user([&] {
    while (!stop) fault::fires(call::map);
  });
  for (int i = 1; i < 200; ++i) fault::arm(call::map, static_cast<std::uint64_t>(i), ENOMEM, i % 2 == 0);
  stop = true;
  user.join();
  fault::arm(call::map, 1, ENOMEM);
  EXPECT_TRUE(fault::fires(call::map));
}

TEST(FaultDeathTest, PlanWithoutUseOrErrorDies) {
  EXPECT_DEATH(fault::arm(call::map, 0, ENOMEM), "both start at 1");
  EXPECT_DEATH(fault::arm(call::map, 1, 0), "both start at 1");
}

}  // namespace
}  // namespace larder::os

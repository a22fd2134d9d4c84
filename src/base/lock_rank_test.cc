// SPDX-License-Identifier: Apache-2.0
#include "base/lock_rank.h"

#include <thread>

#include <gtest/gtest.h>

#include "base/mutex.h"

namespace larder::base {
namespace {

class LockRankDeathTest : public testing::Test {
 protected:
  void SetUp() override {
#ifndef LARDER_DEBUG_CHECKS
    GTEST_SKIP() << "checked in builds with LARDER_DEBUG_CHECKS";
#endif
  }
  mutex outer_{lock_rank::page_file};
  mutex inner_{lock_rank::budget};
};

TEST_F(LockRankDeathTest, RisingRanksAreTaken) {
  {
    const lock first(outer_);
    const lock second(inner_);
  }
  const lock again(outer_);
  EXPECT_DEATH(check_no_lock_held("sleeping"), "sleeping while a lock of rank [0-9]+ is held");
}

TEST_F(LockRankDeathTest, FallingRankDies) {
  const lock second(inner_);
  EXPECT_DEATH(const lock first(outer_), "lock order: rank [0-9]+ taken while rank [0-9]+ is held");
}

TEST_F(LockRankDeathTest, EqualRankDies) {
  mutex sibling(lock_rank::page_file);
  const lock first(outer_);
  EXPECT_DEATH(const lock second(sibling), "lock order: rank [0-9]+ taken while rank [0-9]+ is held");
}

TEST_F(LockRankDeathTest, UnlockOfWhatIsNotHeldDies) {
  EXPECT_DEATH(note_unlocked(lock_rank::server), "does not hold it");
}

TEST_F(LockRankDeathTest, EachThreadHoldsItsOwn) {
  const lock mine(inner_);
  std::thread([&] {
    check_no_lock_held("starting");
    const lock theirs(outer_);
  }).join();
}

TEST(MutexTest, ExcludesOthers) {
  mutex guard(lock_rank::server);
  int count = 0;
  auto add = [&] {
    for (int i = 0; i < 20'000; ++i) {
      const lock locked(guard);
      ++count;
    }
  };
  std::thread other(add);
  add();
  other.join();
  EXPECT_EQ(count, 40'000);
}

}  // namespace
}  // namespace larder::base

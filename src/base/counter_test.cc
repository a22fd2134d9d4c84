// SPDX-License-Identifier: Apache-2.0
#include "base/counter.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace larder::base {
namespace {

TEST(CounterTest, NoAdditionOfManyThreadsIsLost) {
  counter count;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) count.add();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(count.value(), 40'000U);
}

TEST(CounterTest, OneWriterIsReadByOthersWithoutTearingOrGoingBack) {
  owned_counter count;
  std::thread writer([&] {
    for (int n = 0; n < 100'000; ++n) count.add(3);
  });
  std::uint64_t before = 0;
  while (before < 300'000) {
    const std::uint64_t now = count.value();
    ASSERT_GE(now, before);
    ASSERT_EQ(now % 3, 0U);
    before = now;
  }
  writer.join();
  count.subtract(300'000);
  EXPECT_EQ(count.value(), 0U);
}

}  // namespace
}  // namespace larder::base

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include <gtest/gtest.h>

#include <larder/keeper.h>

namespace larder::tests {

// While it lives the keeper makes no round, so that figures taken one after the other fit each other.
class keeper_at_rest {
 public:
  keeper_at_rest() { EXPECT_TRUE(configure_keeper({.period = std::chrono::hours(1)})); }
  ~keeper_at_rest() { EXPECT_TRUE(configure_keeper(before_)); }
  keeper_at_rest(const keeper_at_rest&) = delete;
  keeper_at_rest& operator=(const keeper_at_rest&) = delete;

 private:
  const keeper_options before_ = keeper_configuration();
};

}  // namespace larder::tests

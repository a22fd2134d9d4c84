// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/replay.h"

#include <stdexcept>

#include <gtest/gtest.h>

namespace larder::sched {
namespace {

TEST(ReplayTest, TextOfAScheduleReadsBackAsItself) {
  for (const char* text : {"0", "0x3.1.2x7", "0.1e.2s.3m1.0r.1d.1f.p1x2", "7x12.0"}) {
    EXPECT_EQ(to_text(from_text(text)), text);
  }
  EXPECT_EQ(to_text({}), "");
  EXPECT_TRUE(from_text("").empty());
}

TEST(ReplayTest, TextThatIsNoScheduleIsRefused) {
  for (const char* text : {"a", "0x", "0.", "9", "0 1", "0q", "1m", ".0", "0x99999999"}) {
    EXPECT_THROW(from_text(text), std::invalid_argument) << text;
  }
}

}  // namespace
}  // namespace larder::sched

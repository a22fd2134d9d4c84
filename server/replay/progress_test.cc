// SPDX-License-Identifier: Apache-2.0
#include "server/replay/progress.h"

#include <chrono>

#include <gtest/gtest.h>

namespace larder::server::replay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr time_point start{std::chrono::hours(1)};

TEST(ProgressTest, SaysNothingDuringTheFirstTwoSeconds) {
  for (const unsigned columns : {0U, 80U}) {
    progress shown(start, columns);
    EXPECT_FALSE(shown.look(0.5, "x", start + milliseconds(1999)));
    EXPECT_EQ(shown.finish(), "");
  }
}

TEST(ProgressTest, ATerminalGetsABarThatIsRenewedAndClearedAway) {
  progress shown(start, 61);
  EXPECT_EQ(shown.look(0.25, "reading", start + seconds(3)), "\r[=====               ]  25%  reading, 9 s left\x1b[K");
  EXPECT_FALSE(shown.look(0.3, "reading", start + milliseconds(3199)));
  EXPECT_TRUE(shown.look(1.0, "reading", start + milliseconds(3200)));
  EXPECT_EQ(shown.look(-1, "reading", start + seconds(125)), "\rreading, 2 min 5 s\x1b[K");
  EXPECT_EQ(shown.finish(), "\r\x1b[K");
}

TEST(ProgressTest, ABarIsNeverWiderThanTheTerminal) {
  for (unsigned columns = 1; columns < 100; ++columns) {
    for (const double share : {-1.0, 0.0, 0.5, 1.0, 1.5}) {
      progress shown(start, columns);
      const auto text = shown.look(share, "a rather long description of the work", start + std::chrono::hours(30));
      ASSERT_TRUE(text);
      EXPECT_LT(text->size() - 4, columns);  // without what returns and what clears
    }
  }
}

TEST(ProgressTest, ALogGetsALineEveryTenSeconds) {
  progress shown(start, 0);
  EXPECT_EQ(shown.look(0.25, "reading", start + seconds(2)), "replay: 25%, reading, after 2 s\n");
  EXPECT_FALSE(shown.look(0.5, "reading", start + milliseconds(11'999)));
  EXPECT_EQ(shown.look(-1, "reading", start + std::chrono::hours(2)), "replay: reading, after 2 h 0 min\n");
  EXPECT_EQ(shown.finish(), "");
}

}  // namespace
}  // namespace larder::server::replay

// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <gtest/gtest.h>

namespace larder::base {
namespace {

TEST(CheckDeathTest, FailureNamesFileLineAndWhatWasSeen) {
  EXPECT_DEATH(LARDER_CHECK(1 + 1 == 3, "%d is not %s", 2, "three"), "^larder: check_test.cc:[0-9]+: 2 is not three\n");
}

TEST(CheckDeathTest, DieLeavesTheFolderOut) {
  EXPECT_DEATH(die("a/b/c.cc", 12, "gone"), "^larder: c.cc:12: gone\n");
  EXPECT_DEATH(die("c.cc", 12, "gone"), "^larder: c.cc:12: gone\n");
}

TEST(CheckTest, SuccessEvaluatesTheConditionOnceAndTheMessageNever) {
  int conditions = 0;
  int messages = 0;
  LARDER_CHECK(++conditions > 0, "%d", ++messages);
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(messages, 0);
}

TEST(CheckDeathTest, AssertIsCheckedInDebugBuildsOnly) {
#ifdef LARDER_DEBUG_CHECKS
  EXPECT_DEATH(LARDER_ASSERT(false, "asserted %d", 1), "asserted 1");
#else
  int evaluated = 0;
  LARDER_ASSERT(++evaluated > 1, "never");
  EXPECT_EQ(evaluated, 0);
#endif
}

}  // namespace
}  // namespace larder::base

// SPDX-License-Identifier: Apache-2.0
#include "server/replay/plot.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

namespace larder::server::replay {
namespace {

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(PlotTest, HasTheTitleTheAxesAndALineWithALegendForEachPolicy) {
  picture shown{.title = "a<b>&\"c\"\x01\xff", .subtitle = "few", .lines = {}, .ratio_most = 0.75};
  for (const eviction_policy policy : eviction_policies) {
    shown.lines.push_back({policy, {{1_MiB, 0.2}, {16_MiB, 0.4}, {512_KiB * 128, 0.7}}});
  }
  const std::string svg = drawn(shown);
  EXPECT_NE(svg.find("<title>a&lt;b&gt;&amp;&quot;c&quot;?\?</title>"), std::string::npos);
  for (const eviction_policy policy : eviction_policies) {
    EXPECT_EQ(count_of(svg, ">" + std::string(name_of(policy)) + "</text>"), 1U);
  }
  for (const char* text : {">1 MiB<", ">64 MiB<", ">20 %<", ">80 %<", "no cache hits more: 75.0 %",
                           "prefers-color-scheme:dark", "hit ratio", "memory of the page cache"}) {
    EXPECT_EQ(count_of(svg, text), 1U) << text;
  }
  EXPECT_EQ(count_of(svg, "stroke-width=\"2\""), 2 * eviction_policies.size());
}

// The places of the first line's points.
TEST(PlotTest, MoreHitsAreHigherAndMoreMemoryFurtherRight) {
  const picture shown{.title = "t",
                      .subtitle = "",
                      .lines = {{eviction_policy::sieve, {{1_MiB, 0.0}, {2_MiB, 0.5}, {4_MiB, 1.0}}}},
                      .ratio_most = 1};
  const std::string svg = drawn(shown);
  EXPECT_NE(svg.find("d=\"M64.0 388.0L400.0 236.0L736.0 84.0\""), std::string::npos) << svg;
}

TEST(PlotTest, OnePointAndEqualRatiosAreDrawnToo) {
  for (const double ratio : {0.0, 0.5, 1.0}) {
    const picture shown{
        .title = "t", .subtitle = "", .lines = {{eviction_policy::lru, {{600_KiB, ratio}}}}, .ratio_most = ratio};
    const std::string svg = drawn(shown);
    EXPECT_EQ(count_of(svg, "nan"), 0U);
    EXPECT_EQ(count_of(svg, "inf"), 0U);
    EXPECT_GE(count_of(svg, "class=\"grid\""), 4U);
  }
}

}  // namespace
}  // namespace larder::server::replay

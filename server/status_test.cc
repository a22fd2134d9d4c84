// SPDX-License-Identifier: Apache-2.0
#include "server/status.h"

#include <gtest/gtest.h>

namespace larder::server {
namespace {

service::figures figures() {
  service::figures all;
  all.connections = 2;
  all.requests = 1000;
  all.in_flight = 3;
  all.bytes_read = 4096;
  all.bytes_written = 512;
  all.handles_used = 5;
  all.pages.hits = 30;
  all.pages.misses = 10;
  all.pages.evictions = 4;
  all.pages.pages_dirty = 2;
  all.memory_used = 12_MiB;
  all.memory_peak = 13_MiB;
  all.memory_limit = 16_MiB;
  all.kinds = {{"pages", 11_MiB}, {"stacks", 600_KiB}};
  return all;
}

class StatusTest : public ::testing::Test {
 protected:
  const time_point start_ = time_point(std::chrono::seconds(100));
  status line_{service::figures{}, start_};
};

TEST_F(StatusTest, ALogLineHasEveryFigureAsAWord) {
  EXPECT_EQ(line_.for_log(figures(), start_ + std::chrono::seconds(2)),
            "status: connections=2 requests=1000 requests_per_second=500 hit_ratio=0.750 memory_used=12582912 "
            "memory_peak=13631488 memory_limit=16777216 pages=11534336 stacks=614400 in_flight=3 dirty=8192 "
            "bytes_read=4096 bytes_written=512 hits=30 misses=10 evictions=4 handles_used=5");
}

TEST_F(StatusTest, ATerminalLineIsReadAtAGlance) {
  EXPECT_EQ(line_.for_terminal(figures(), start_ + std::chrono::seconds(1), 200),
            "2 clients  1000 requests/s  75.0% hits  12.0M of 16.0M: pages 11.0M stacks 600K  8.0K to write");
  service::figures one = figures();
  one.connections = 1;
  EXPECT_EQ(line_.for_terminal(one, start_ + std::chrono::seconds(2), 200).substr(0, 10), "1 client  ");
}

TEST_F(StatusTest, RatesAreThoseSinceTheLastLine) {
  (void)line_.for_log(figures(), start_ + std::chrono::seconds(1));
  service::figures later = figures();
  later.requests += 30;
  later.pages.hits += 1;
  later.pages.misses += 3;
  const std::string line = line_.for_log(later, start_ + std::chrono::seconds(4));
  EXPECT_NE(line.find("requests_per_second=10 hit_ratio=0.250"), std::string::npos) << line;
  const std::string idle = line_.for_log(later, start_ + std::chrono::seconds(5));
  EXPECT_NE(idle.find("requests_per_second=0 hit_ratio=1.000"), std::string::npos) << idle;
  const std::string at_once = line_.for_log(later, start_ + std::chrono::seconds(5));
  EXPECT_NE(at_once.find("requests_per_second=0"), std::string::npos) << "no time has passed";
}

TEST_F(StatusTest, ATerminalLineFitsItsTerminal) {
  for (const unsigned columns : {1U, 2U, 40U, 80U}) {
    EXPECT_LT(line_.for_terminal(figures(), start_, columns).size(), columns);
  }
  EXPECT_GT(line_.for_terminal(figures(), start_, 0).size(), 80U) << "a terminal that knows no width";
}

}  // namespace
}  // namespace larder::server

// SPDX-License-Identifier: Apache-2.0
#include "server/replay/replay.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "os/fault.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

void watch_nothing(double, std::string_view) {}

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "larder-replay-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    chosen_.trace = name + "/t.csv";
    chosen_.policies.assign(eviction_policies.begin(), eviction_policies.end());
    // A loop over 300 pages, a part of it written, and one page that is asked for between.
    std::ofstream trace(chosen_.trace);
    trace << "op,offset,size\n";
    for (int i = 0; i < 3'000; ++i) {
      trace << (i % 10 == 0 ? "write," : "read,") << i % 300 * 4096 << ",4096\n";
      trace << "read,8192000,512\n";
    }
  }
  void TearDown() override {
    os::fault::disarm();
    std::filesystem::remove_all(folder_);
  }

  findings found() const {
    trace_reader trace(chosen_.trace);
    return run(trace, chosen_, watch_nothing);
  }
  std::string refusal() const {
    try {
      (void)found();
    } catch (const bad_start& problem) {
      return problem.what();
    }
    return "accepted";
  }
  std::size_t names_in_folder() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  // The exit code; what is printed goes to `printed_`.
  int whole() {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = replay(chosen_);
    printed_ = testing::internal::GetCapturedStdout();
    complained_ = testing::internal::GetCapturedStderr();
    return code;
  }

  std::string folder_;
  replay_options chosen_;
  std::string printed_;
  std::string complained_;
};

TEST_F(ReplayTest, TriesEachPolicyAtSizesUpToWhereEverythingFits) {
  const findings all = found();
  EXPECT_EQ(all.look_ups, 6'000U);
  EXPECT_EQ(all.footprint_pages, 301U);
  EXPECT_EQ(all.hits_most, 6'000U - 301);
  EXPECT_EQ(all.disk_size, bytes{8192000 + 512});
  ASSERT_EQ(all.rows.size() % eviction_policies.size(), 0U);
  EXPECT_GE(all.rows.size() / eviction_policies.size(), 8U);
  for (std::size_t i = 0; i < all.rows.size(); ++i) {
    EXPECT_EQ(all.rows[i].cache.policy, eviction_policies[i % eviction_policies.size()]);
    EXPECT_EQ(all.rows[i].result.look_ups(), all.look_ups);
    EXPECT_LE(all.rows[i].result.hit_ratio(), all.ratio_most());
  }
  for (std::size_t i = all.rows.size() - eviction_policies.size(); i < all.rows.size(); ++i) {
    EXPECT_EQ(all.rows[i].result.pages.hits, all.hits_most) << "everything fits";
  }
  // In a loop that does not fit, the one page is all that LRU hits.
  EXPECT_EQ(all.rows[3].cache.policy, eviction_policy::lru);
  EXPECT_EQ(all.rows[3].result.pages.hits, 2'999U);
}

TEST_F(ReplayTest, OneCacheIsDrivenAsTheTraceIsReadWithTheSameResult) {
  const findings all = found();
  for (const findings::row& row : all.rows) {
    chosen_.sizes = {row.cache.memory};
    chosen_.policies = {row.cache.policy};
    const findings one = found();
    ASSERT_EQ(one.rows.size(), 1U);
    EXPECT_EQ(one.rows[0].result.pages.hits, row.result.pages.hits);
    EXPECT_EQ(one.rows[0].result.pages.evictions, row.result.pages.evictions);
    EXPECT_EQ(one.rows[0].result.pages.write_backs, row.result.pages.write_backs);
    EXPECT_EQ(one.rows[0].result.disk_read, row.result.disk_read);
    EXPECT_EQ(one.hits_most, all.hits_most);
    EXPECT_EQ(one.footprint_pages, all.footprint_pages);
  }
}

TEST_F(ReplayTest, SizesAreRoundAndSpanAFactorOf64) {
  for (const std::uint64_t footprint : {1'000U, 100'000U, 262'128U}) {
    const auto sizes = sizes_for(footprint, chosen_.policies, 4_KiB);
    ASSERT_GE(sizes.size(), 12U);
    EXPECT_TRUE(std::is_sorted(sizes.begin(), sizes.end()));
    EXPECT_LE(sizes.front().count, sizes.back().count / 42);
    EXPECT_GE(sizes.back(), bytes{footprint * page_size});
    EXPECT_LE(sizes.back(), bytes{footprint * page_size * 2});
  }
  EXPECT_EQ(sizes_for(1, chosen_.policies, 4_KiB).size(), 1U);
}

TEST_F(ReplayTest, RequestsPastTheDiskAreRefusedWhereTheyStand) {
  chosen_.disk_size = bytes{8192000};
  EXPECT_EQ(refusal(), chosen_.trace +
                           ": line 3: the request ends at byte 8192512, past the disk of 8000K that --disk-size gives");
  chosen_.disk_size = bytes{8192512};
  EXPECT_EQ(found().disk_size, bytes{8192512});
}

TEST_F(ReplayTest, OnlyTheFirstRequestsAreReplayedIfSoAsked) {
  chosen_.requests_most = 10;
  const findings all = found();
  EXPECT_EQ(all.look_ups, 10U);
  EXPECT_EQ(all.footprint_pages, 6U);
}

TEST_F(ReplayTest, ASizeThatCannotBeIsRefusedBeforeTheTraceIsRead) {
  std::ofstream(chosen_.trace) << "no trace at all";
  chosen_.sizes = {64_MiB, 1_KiB};
  EXPECT_NE(refusal().find("1K of memory: too little; the least that a page cache works with is"), std::string::npos);
}

TEST_F(ReplayTest, ATraceWithoutLookUpsHasNoCaches) {
  std::ofstream(chosen_.trace) << "op,offset,size\nflush,,\nread,0,0\n";
  EXPECT_TRUE(found().rows.empty());
  EXPECT_EQ(whole(), 0);
  EXPECT_NE(printed_.find("2 requests: 1 read, 1 flush\n"), std::string::npos) << printed_;
  chosen_.svg = folder_ + "/x.svg";
  EXPECT_THROW((void)replay(chosen_), bad_start);
  EXPECT_EQ(names_in_folder(), 1U);
}

TEST_F(ReplayTest, ProgressIsToldAndGrows) {
  std::string text = "op,offset,size\n";
  for (int i = 0; i < 20'000; ++i) text += "read,0,512\n";
  std::ofstream(chosen_.trace) << text;
  trace_reader trace(chosen_.trace);
  std::vector<double> shares;
  std::string last;
  (void)run(trace, chosen_, [&](double share, std::string_view doing) {
    shares.push_back(share);
    last = doing;
  });
  ASSERT_GT(shares.size(), 8U);
  for (const double share : shares) EXPECT_TRUE(0 <= share && share <= 1) << share;
  EXPECT_TRUE(last.starts_with("cache 4 of 4: ")) << last;
  EXPECT_TRUE(last.ends_with(" lru")) << last;
}

TEST_F(ReplayTest, PrintsATableForPeopleAndAnObjectForPrograms) {
  chosen_.sizes = {256_KiB, 2_MiB};
  ASSERT_EQ(whole(), 0);
  for (const char* text :
       {"6000 requests: 5700 read (", "), 300 write (", "in 301 pages of 4K, which they look up 6000",
        "would hit 94.98% of these", "hit ratio     sieve   s3-fifo     clock       lru\n      256K "}) {
    EXPECT_NE(printed_.find(text), std::string::npos) << text << "\n" << printed_;
  }
  // At most its progress, where it is slow.
  EXPECT_TRUE(
      std::regex_match(complained_, std::regex("(replay: [0-9]+%, cache [0-9] of 8: [^\n]*, after [0-9]+ s\n)*")))
      << complained_;
  chosen_.json = true;
  ASSERT_EQ(whole(), 0);
  const auto all = nlohmann::json::parse(printed_);
  EXPECT_EQ(all["look_ups"], 6000);
  EXPECT_EQ(all["requests"]["write"], 300);
  ASSERT_EQ(all["caches"].size(), 8U);
  EXPECT_EQ(all["caches"][3]["policy"], "lru");
  EXPECT_GE(all["caches"][3]["hits"], 2999);
  EXPECT_EQ(all["caches"][7]["memory_bytes"], 2 << 20);
}

TEST_F(ReplayTest, DrawsAPictureOrLeavesTheOldOne) {
  chosen_.svg = folder_ + "/x.svg";
  chosen_.sizes = {256_KiB};
  ASSERT_EQ(whole(), 0);
  EXPECT_EQ(names_in_folder(), 2U);
  const auto before = std::filesystem::file_size(chosen_.svg);
  EXPECT_GT(before, 1000U);
  chosen_.sizes = {256_KiB, 512_KiB};
  os::fault::arm(os::call::write, 1, ENOSPC);
  EXPECT_EQ(whole(), 1);
  EXPECT_NE(printed_.find("hit ratio"), std::string::npos) << "the results are not lost";
  EXPECT_NE(complained_.find("x.svg: No space left on device; make room, or choose another file"), std::string::npos);
  os::fault::disarm();
  EXPECT_EQ(std::filesystem::file_size(chosen_.svg), before);
  EXPECT_EQ(names_in_folder(), 2U);
}

TEST_F(ReplayTest, APictureThatCannotBeIsRefusedBeforeTheReplay) {
  chosen_.svg = folder_ + "/none/x.svg";
  EXPECT_THROW((void)replay(chosen_), bad_start);
  chosen_.svg = folder_;
  EXPECT_THROW((void)replay(chosen_), bad_start);
}

}  // namespace
}  // namespace larder::server::replay

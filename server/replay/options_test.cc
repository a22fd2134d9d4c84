// SPDX-License-Identifier: Apache-2.0
#include "server/replay/options.h"

#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "server/options.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

replay_options read(std::vector<const char*> words) {
  words.insert(words.begin(), {"larder", "replay"});
  auto chosen = read_command_line(static_cast<int>(words.size()), words.data());
  return std::get<replay_options>(*std::move(chosen));
}
std::string refusal_of(const std::vector<const char*>& words) {
  try {
    (void)read(words);
  } catch (const bad_start& problem) {
    const std::string message = problem.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << "not one line: " << message;
    return message;
  }
  return "accepted";
}

TEST(ReplayOptionsTest, ATraceAloneMeansAllPoliciesOverSizesThatFitIt) {
  const replay_options chosen = read({"disk.csv"});
  EXPECT_EQ(chosen.trace, "disk.csv");
  EXPECT_TRUE(chosen.sizes.empty());
  EXPECT_EQ(chosen.policies, std::vector<eviction_policy>(eviction_policies.begin(), eviction_policies.end()));
  EXPECT_FALSE(chosen.disk_size);
  EXPECT_EQ(chosen.page, 4_KiB);
  EXPECT_FALSE(chosen.requests_most);
  EXPECT_EQ(chosen.svg, "");
  EXPECT_FALSE(chosen.json);
  EXPECT_EQ(read({"-"}).trace, "-");
}

TEST(ReplayOptionsTest, EverythingSaidIsTaken) {
  const replay_options chosen = read({"--memory", "600K", "--policy", "s3-fifo", "disk.csv", "--disk-size", "1G",
                                      "--limit-requests", "1000", "--page-size", "16K", "--svg", "x.svg", "--json"});
  EXPECT_EQ(chosen.trace, "disk.csv");
  EXPECT_EQ(chosen.sizes, std::vector<bytes>{600_KiB});
  EXPECT_EQ(chosen.policies, std::vector<eviction_policy>{eviction_policy::s3_fifo});
  EXPECT_EQ(chosen.disk_size, 1_GiB);
  EXPECT_EQ(chosen.page, 16_KiB);
  EXPECT_EQ(chosen.requests_most, 1000U);
  EXPECT_EQ(chosen.svg, "x.svg");
  EXPECT_TRUE(chosen.json);
  EXPECT_EQ(read({"t", "--sizes", "2M,600K,2M"}).sizes, (std::vector<bytes>{600_KiB, 2_MiB})) << "sorted, each once";
}

TEST(ReplayOptionsTest, WhatIsWrongIsRefusedWithWhatWouldBeRight) {
  EXPECT_NE(refusal_of({}).find("Name a CSV file"), std::string::npos);
  EXPECT_EQ(refusal_of({"t", "--policy", "fifo"}),
            "--policy fifo: no such policy; give one of sieve, s3-fifo, clock, lru, all");
  EXPECT_EQ(refusal_of({"t", "--memory", "1M", "--sizes", "2M"}), "--memory and --sizes: give one of them");
  for (const char* sizes : {"", ",", "1M,", "1M,,2M", "many", "1M;2M"}) {
    EXPECT_NE(refusal_of({"t", "--sizes", sizes}).find("--sizes"), std::string::npos) << sizes;
    EXPECT_NE(refusal_of({"t", "--sizes", sizes}).find("such as 16M"), std::string::npos) << sizes;
  }
  std::string many;
  for (int size = 1; size <= 65; ++size) many += std::to_string(size) + (size < 65 ? "M," : "M");
  EXPECT_EQ(refusal_of({"t", "--sizes", many.c_str()}), "--sizes: 65 sizes; give at most 64");
  EXPECT_NE(refusal_of({"t", "--memory", "lots"}).find("--memory lots: not a size"), std::string::npos);
  EXPECT_NE(refusal_of({"t", "--disk-size", "1e9"}).find("--disk-size 1e9: not a size"), std::string::npos);
  for (const char* page : {"0", "2K", "12K", "128K", "5000"}) {
    EXPECT_EQ(refusal_of({"t", "--page-size", page}),
              "--page-size " + std::string(page) + ": no such page; give 4K, 8K, 16K, 32K or 64K");
  }
  for (const char* count : {"0", "-1", "1K", "99999999999999999999"}) {
    EXPECT_EQ(refusal_of({"t", "--limit-requests", count}),
              "--limit-requests " + std::string(count) + ": a number of requests, 1 or more");
  }
  EXPECT_NE(refusal_of({"t", "--nonsense"}).find("see larder replay --help"), std::string::npos);
  EXPECT_NE(refusal_of({"t", "u"}).find("see larder replay --help"), std::string::npos);
}

TEST(ReplayOptionsTest, HelpTellsTheTraceAndGivesExamples) {
  const std::vector<const char*> words = {"larder", "replay", "--help"};
  testing::internal::CaptureStdout();
  EXPECT_FALSE(read_command_line(3, words.data()));
  const std::string help = testing::internal::GetCapturedStdout();
  for (const char* text : {"TRACE", "--memory", "--sizes", "--policy", "--svg", "offset or lbn", "zcat"}) {
    EXPECT_NE(help.find(text), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace larder::server::replay

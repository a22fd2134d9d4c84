// SPDX-License-Identifier: Apache-2.0
#include "server/replay/trace_reader.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

class TraceReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "larder-trace-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = name + "/t.csv";
  }
  void TearDown() override {
    os::fault::disarm();
    std::filesystem::remove_all(folder_);
  }

  void write_trace(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  static std::vector<request> all_of(trace_reader& reader) {
    std::vector<request> all;
    for (request next; reader.next(next);) all.push_back(next);
    return all;
  }
  std::string refusal() const {
    try {
      trace_reader reader(path_);
      (void)all_of(reader);
    } catch (const bad_start& problem) {
      const std::string message = problem.what();
      EXPECT_TRUE(message.starts_with(path_ + ": ")) << message;
      return message.substr(path_.size() + 2);
    }
    return "accepted";
  }

  std::string folder_;
  std::string path_;
};

TEST_F(TraceReaderTest, ReadsAFileOfManyBuffersWhoseLastLineHasNoEnd) {
  std::string text = "op,offset,size";
  constexpr std::uint64_t count = 100'000;
  for (std::uint64_t i = 0; i < count; ++i) text += "\nread," + std::to_string(i * 512) + ",512";
  write_trace(text);
  trace_reader reader(path_);
  EXPECT_EQ(reader.size(), bytes{text.size()});
  const auto all = all_of(reader);
  ASSERT_EQ(all.size(), count);
  for (std::uint64_t i = 0; i < count; ++i) ASSERT_EQ(all[i], (request{operation::read, i * 512, 512}));
  EXPECT_EQ(reader.position(), bytes{text.size()});
  EXPECT_EQ(reader.parser().lines(), count + 1);
}

TEST_F(TraceReaderTest, ReadsAPipeAsItComes) {
  int pair[2];
  ASSERT_EQ(::pipe(pair), 0);
  trace_reader reader("pipe", os::descriptor(pair[0]));
  EXPECT_EQ(reader.size(), 0_B);
  std::thread writer([end = os::descriptor(pair[1])] {
    for (const char* part : {"op,off", "set,size\nrea", "d,1,2\r\n", "\nwrite,3,4\n"}) {
      EXPECT_GT(::write(end.number(), part, std::string(part).size()), 0);
    }
  });
  const std::vector<request> expected = {{operation::read, 1, 2}, {operation::write, 3, 4}};
  EXPECT_EQ(all_of(reader), expected);
  writer.join();
}

TEST_F(TraceReaderTest, WhatCannotBeReadIsRefusedWithAWayOut) {
  EXPECT_EQ(refusal(), "there is no such file; name a trace, or - for standard input");
  write_trace("");
  EXPECT_NE(refusal().find("is empty"), std::string::npos);
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(refusal(), "is a directory; name a trace, or - for standard input");
}

TEST_F(TraceReaderTest, AFileThatIsNoTextIsRefusedAtItsFirstLine) {
  write_trace(std::string(300 << 10, 'x'));
  EXPECT_EQ(refusal(), "line 1: has more than 256 KiB; is this a text file with a request in each line?");
  write_trace("op,offset,size\nread,1,2\n" + std::string(300 << 10, '1'));
  EXPECT_NE(refusal().find("line 3: has more than"), std::string::npos);
}

TEST_F(TraceReaderTest, EverySystemCallThatFailsIsReported) {
  write_trace("op,offset,size\nread,1,2\n");
  for (const os::call which : {os::call::open, os::call::stat, os::call::read}) {
    for (std::uint64_t nth = 1; nth <= 2; ++nth) {
      os::fault::arm(which, nth, EIO);
      const std::string message = refusal();
      if (os::fault::fired()) {
        EXPECT_NE(message.find("cannot be read: Input/output error"), std::string::npos) << message;
      } else {
        EXPECT_EQ(message, "accepted");
      }
      EXPECT_TRUE(os::fault::fired() || nth > 1);
    }
  }
  os::fault::arm(os::call::open, 1, EACCES);
  EXPECT_EQ(refusal(), "may not be read; change its permissions, or run as who may");
}

}  // namespace
}  // namespace larder::server::replay

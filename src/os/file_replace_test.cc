// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "os/fault.h"
#include "os/file.h"

namespace larder::os {
namespace {

class FileReplaceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "larder-replace-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = (folder_ / "file").string();
  }
  void TearDown() override {
    fault::disarm();
    std::filesystem::remove_all(folder_);
  }

  std::string contents() const {
    std::ifstream stream(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::size_t names_in_folder() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(FileReplaceTest, MakesANewFileAndReplacesAnOldOne) {
  ASSERT_TRUE(replace_file(path_, "one"));
  EXPECT_EQ(contents(), "one");
  ASSERT_TRUE(replace_file(path_, ""));
  EXPECT_EQ(contents(), "");
  ASSERT_TRUE(replace_file(path_, std::string(1 << 20, 'x')));
  EXPECT_EQ(contents(), std::string(1 << 20, 'x'));
  EXPECT_EQ(names_in_folder(), 1U);
}

TEST_F(FileReplaceTest, WhateverFailsTheOldFileStaysAndNothingIsLeftBeside) {
  ASSERT_TRUE(replace_file(path_, "old"));
  for (const call which : {call::open, call::write, call::sync}) {
    fault::arm(which, 1, ENOSPC);
    const auto replaced = replace_file(path_, "new");
    EXPECT_TRUE(fault::fired());
    ASSERT_FALSE(replaced);
    EXPECT_EQ(replaced.error(), error_from(ENOSPC));
    EXPECT_EQ(contents(), "old");
    EXPECT_EQ(names_in_folder(), 1U);
  }
}

TEST_F(FileReplaceTest, ARealFullDiskIsReported) {
  // A device is written to, not replaced.
  EXPECT_EQ(replace_file("/dev/full", "text").error(), error_from(ENOSPC));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  EXPECT_TRUE(replace_file("/dev/null", "text"));
  EXPECT_TRUE(check_replaceable("/dev/null"));
}

TEST_F(FileReplaceTest, WhatMayNotBeReplacedIsKnownBefore) {
  EXPECT_EQ(check_replaceable((folder_ / "none" / "file").string()).error(), error_from(ENOENT));
  EXPECT_EQ(replace_file((folder_ / "none" / "file").string(), "").error(), error_from(ENOENT));
  EXPECT_EQ(check_replaceable(folder_.string()).error(), error_from(EISDIR));
  EXPECT_EQ(replace_file(folder_.string(), "text").error(), error_from(EISDIR));
  EXPECT_TRUE(check_replaceable(path_));
  EXPECT_EQ(names_in_folder(), 0U);
}

TEST_F(FileReplaceTest, WhatAnotherLeftInTheWayIsPassedBy) {
  const std::string left = path_ + ".new-" + std::to_string(::getpid()) + "-0";
  std::ofstream(left) << "left";
  ASSERT_TRUE(replace_file(path_, "new"));
  EXPECT_EQ(contents(), "new");
  EXPECT_TRUE(std::filesystem::exists(left));
}

TEST_F(FileReplaceTest, ReadsWhatAPipeHasAndThenItsEnd) {
  int pair[2];
  ASSERT_EQ(::pipe(pair), 0);
  descriptor reader(pair[0]);
  descriptor writer(pair[1]);
  ASSERT_EQ(::write(writer.number(), "text", 4), 4);
  std::array<char, 16> into{};
  EXPECT_EQ(*read_next(reader.number(), into), 4U);
  EXPECT_EQ(std::string(into.data()), "text");
  writer.close();
  EXPECT_EQ(*read_next(reader.number(), into), 0U);
  fault::arm(call::read, 1, EIO);
  EXPECT_EQ(read_next(reader.number(), into).error(), error_from(EIO));
  EXPECT_EQ(read_next(-1, into).error(), error_from(EBADF));
}

}  // namespace
}  // namespace larder::os

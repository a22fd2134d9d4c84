// SPDX-License-Identifier: Apache-2.0
#include "server/images.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::server {
namespace {

namespace fs = std::filesystem;

class ImagesTest : public ::testing::Test {
 protected:
  ImagesTest() {
    folder_ = fs::path(testing::TempDir()) / ("larder-images-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  ~ImagesTest() override { fs::remove_all(folder_); }

  std::string make(const std::string& name, std::uintmax_t size) {
    const std::string path = folder_ / name;
    std::ofstream{path};
    fs::resize_file(path, size);
    return path;
  }
  static std::string refusal(const std::string& path, bool read_only = false) {
    try {
      (void)open_images({{"name", path, read_only}});
    } catch (const bad_start& problem) {
      const std::string message = problem.what();
      EXPECT_EQ(message.find(path + ": "), 0U) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      return message.substr(path.size() + 2);
    }
    return {};
  }

  fs::path folder_;
};

TEST_F(ImagesTest, ImagesAreOpenedInOrderWithTheirSizes) {
  const auto disks = open_images({{"a", make("a.img", 512), false}, {"b", make("b.img", 1U << 20), true}});
  ASSERT_EQ(disks.size(), 2U);
  EXPECT_EQ(disks[0].name, "a");
  EXPECT_EQ(disks[0].source->size(), 512_B);
  EXPECT_FALSE(disks[0].read_only);
  EXPECT_EQ(disks[1].source->size(), 1_MiB);
  EXPECT_TRUE(disks[1].read_only);
}

TEST_F(ImagesTest, AMissingImageIsRefusedWithTheCommandThatMakesOne) {
  const std::string path = folder_ / "nowhere.img";
  EXPECT_EQ(refusal(path), "there is no such file; make one with: truncate -s 1G " + path);
}

TEST_F(ImagesTest, ADirectoryIsRefused) {
  for (const bool read_only : {false, true}) {
    EXPECT_EQ(refusal(folder_, read_only), "is a directory; name a disk image or a block device");
  }
}

TEST_F(ImagesTest, AnEmptyImageIsRefused) {
  const std::string path = make("empty.img", 0);
  EXPECT_EQ(refusal(path), "is empty; give it a size with: truncate -s 1G " + path);
}

TEST_F(ImagesTest, AnOddSizedImageIsRefusedWithTheNextSizeThatWorks) {
  for (const auto& [size, next] : {std::pair{1U, 512U}, {511U, 512U}, {513U, 1024U}, {1048577U, 1049088U}}) {
    const std::string path = make("odd.img", size);
    const std::string message = refusal(path);
    EXPECT_NE(message.find("has " + std::to_string(size) + " bytes"), std::string::npos) << message;
    EXPECT_NE(message.find("truncate -s " + std::to_string(next) + " " + path), std::string::npos) << message;
    EXPECT_EQ(fs::file_size(path), size) << "it was changed";
  }
}

TEST_F(ImagesTest, AFifoIsRefusedWithoutWaitingForItsOtherEnd) {
  const std::string path = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  for (const bool read_only : {false, true}) {
    EXPECT_EQ(refusal(path, read_only), "is neither a file nor a block device; name a disk image");
  }
}

TEST_F(ImagesTest, AnImageThatMayNotBeWrittenIsAdvisedToBeReadOnly) {
  const std::string path = make("locked.img", 512);
  for (const int problem : {EACCES, EROFS, EPERM}) {
    os::fault::arm(os::call::open, 1, problem);
    EXPECT_EQ(
        refusal(path),
        "may not be read and written; change its permissions, or export it read-only: --export name=" + path + ",ro");
    os::fault::arm(os::call::open, 1, problem);
    EXPECT_EQ(refusal(path, true), "may not be read; change its permissions, or run as who may");
  }
  os::fault::arm(os::call::stat, 1, EIO);
  EXPECT_EQ(refusal(path), "cannot be opened: Input/output error");
  os::fault::disarm();
  EXPECT_EQ(refusal(path), "");
}

TEST_F(ImagesTest, TheDemonstrationDiskIsLargeSparseAndLeavesNothing) {
  ASSERT_EQ(::setenv("TMPDIR", folder_.c_str(), 1), 0);
  {
    const disk made = make_demonstration_disk();
    EXPECT_EQ(made.name, demonstration_name);
    EXPECT_EQ(made.source->size(), demonstration_size);
    EXPECT_TRUE(fs::is_empty(folder_));
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  const std::string missing = folder_ / "missing";
  ASSERT_EQ(::setenv("TMPDIR", missing.c_str(), 1), 0);
  try {
    (void)make_demonstration_disk();
    ADD_FAILURE() << "made in a folder that does not exist";
  } catch (const bad_start& problem) {
    EXPECT_EQ(std::string(problem.what()),
              "no demonstration disk can be made in " + missing +
                  ": No such file or directory; set TMPDIR, or name an image: larder serve "
                  "disk.img");
  }
  ::unsetenv("TMPDIR");
}

}  // namespace
}  // namespace larder::server

// SPDX-License-Identifier: Apache-2.0
#include "os/memory_group.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "os/events.h"
#include "os/fault.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

// A system in a folder: what /proc and the mounted hierarchies would show.
class MemoryGroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("larder-group-" + std::to_string(::getpid()));
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  void put(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  memory_group group() const { return memory_group(group_files{path("groups"), path("mounts"), path("pressure")}); }

  std::filesystem::path root_;
};

TEST_F(MemoryGroupTest, LowestLimitOfVersionTwoCounts) {
  put("groups", "0::/a.slice/b.service\n");
  put("mounts", "29 23 0:26 / " + path("fs") + " rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  put("fs/a.slice/b.service/memory.max", "max\n");
  put("fs/a.slice/memory.max", "1073741824\n");
  EXPECT_EQ(group().limit(), 1_GiB);
  EXPECT_EQ(group().limit_files(), (std::vector<std::string>{path("fs/a.slice/b.service/memory.max"),
                                                             path("fs/a.slice/memory.max"), path("fs/memory.max")}));
  put("fs/a.slice/b.service/memory.max", "524288000\n");
  EXPECT_EQ(group().limit(), 500_MiB);
}

TEST_F(MemoryGroupTest, ALimitIsReadAnewEachTime) {
  put("groups", "0::/a\n");
  put("mounts", "29 23 0:26 / " + path("fs") + " rw - cgroup2 cgroup2 rw\n");
  const memory_group found = group();
  EXPECT_EQ(found.limit(), unlimited);
  put("fs/a/memory.max", "8192\n");
  EXPECT_EQ(found.limit(), 8_KiB);
  put("fs/a/memory.max", "max\n");
  EXPECT_EQ(found.limit(), unlimited);
}

TEST_F(MemoryGroupTest, VersionOneIsFoundByItsController) {
  put("groups", "9:name=systemd:/x\n4:cpu,memory:/job\n3:memoryless:/other\n0::/\n");
  put("mounts", "34 31 0:31 / " + path("cpu") + " rw - cgroup cgroup rw,cpu\n35 31 0:32 / " + path("mem\\040ory") +
                    " rw,relatime shared:7 master:1 - cgroup cgroup rw,cpu,memory\n41 31 0:38 / " + path("two") +
                    " rw - cgroup2 cgroup2 rw\n");
  put("mem ory/job/memory.limit_in_bytes", "67108864\n");
  put("mem ory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(group().limit(), 64_MiB);
  put("mem ory/job/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(group().limit(), unlimited) << "what version 1 shows for no limit";
}

// As in a container: the mount shows a part of the hierarchy only.
TEST_F(MemoryGroupTest, AMountOfAPartShowsThatPart) {
  put("groups", "0::/docker/c1/inner\n");
  put("mounts", "29 23 0:26 /docker/c1 " + path("fs") + " ro - cgroup2 cgroup2 rw\n");
  put("fs/inner/memory.max", "4096\n");
  EXPECT_EQ(group().limit(), 4_KiB);
  put("groups", "0::/somewhere/else\n");
  put("fs/memory.max", "12288\n");
  EXPECT_EQ(group().limit(), 12_KiB);
  put("groups", "0::/../../other\n");
  EXPECT_EQ(group().limit(), 12_KiB);
}

TEST_F(MemoryGroupTest, WhatCannotBeReadLimitsNothing) {
  EXPECT_EQ(group().limit(), unlimited);
  EXPECT_FALSE(group().watch_pressure(150ms));
  for (const char* text : {"", "\n\n", ":", "::::", "0:", "0::", "4:memory", "0::relative", "\\", "1 2 3"}) {
    put("groups", text);
    put("mounts", text);
    EXPECT_EQ(group().limit(), unlimited) << text;
  }
  put("groups", "0::/a\n");
  put("mounts", "29 23 0:26 / " + path("fs") + " rw - cgroup2 cgroup2 rw\n");
  for (const char* text : {"", "nothing", "-1", "99999999999999999999999999"}) {
    put("fs/a/memory.max", text);
    EXPECT_EQ(group().limit(), unlimited) << text;
  }
}

TEST_F(MemoryGroupTest, TheGroupsOwnPressureComesFirst) {
  put("groups", "0::/a\n");
  put("mounts", "29 23 0:26 / " + path("fs") + " rw - cgroup2 cgroup2 rw\n");
  put("pressure", "");
  EXPECT_EQ(group().pressure_file(), path("pressure"));
  put("fs/a/memory.pressure", "");
  EXPECT_EQ(group().pressure_file(), path("fs/a/memory.pressure"));
  const auto watched = group().watch_pressure(150ms);
  ASSERT_TRUE(watched) << watched.error().message();
  std::ifstream file(path("fs/a/memory.pressure"));
  std::string trigger;
  std::getline(file, trigger, '\0');
  EXPECT_EQ(trigger, "some 150000 2000000");
}

TEST_F(MemoryGroupTest, FailuresAreTold) {
  put("pressure", "");
  fault::arm(call::write, 1, EINVAL);
  EXPECT_EQ(group().watch_pressure(150ms).error(), std::errc::invalid_argument);
  fault::disarm();
  fault::arm(call::open, 1, EMFILE, true);
  EXPECT_EQ(group().watch_pressure(150ms).error(), std::errc::too_many_files_open);
  EXPECT_FALSE(group().is_complete()) << "what could not be read may say something";
  fault::disarm();
}

// A limit that cannot be looked up for now is not none.
TEST_F(MemoryGroupTest, WhatCannotBeReadNowIsNotKnown) {
  put("groups", "0::/a\n");
  put("mounts", "29 23 0:26 / " + path("fs") + " rw - cgroup2 cgroup2 rw\n");
  put("fs/a/memory.max", "8192\n");
  const memory_group found = group();
  EXPECT_TRUE(found.is_complete());
  for (const call which : {call::open, call::read}) {
    fault::arm(which, 1, EMFILE);
    EXPECT_EQ(found.limit(), std::nullopt);
    fault::disarm();
    EXPECT_EQ(found.limit(), 8_KiB);
  }
}

TEST_F(MemoryGroupTest, TheRealSystemsTriggerIsTaken) {
  const memory_group real;
  if (!std::ifstream(real.pressure_file())) GTEST_SKIP() << "the kernel has no pressure stall information";
  const auto watched = real.watch_pressure(150ms);
  for (const std::errc reason :
       {std::errc::permission_denied, std::errc::operation_not_permitted, std::errc::read_only_file_system}) {
    if (!watched && watched.error() == reason) GTEST_SKIP() << "it may not be watched";
  }
  EXPECT_TRUE(watched) << watched.error().message();
}

}  // namespace
}  // namespace larder::os

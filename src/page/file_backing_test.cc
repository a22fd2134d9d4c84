// SPDX-License-Identifier: Apache-2.0
//
// Files that are read and written directly: all that is transferred, aligned or not, is what a buffered file would
// have.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <random>

#include <larder/runtime.h>

#include "os/fault.h"
#include "os/file.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

constexpr std::uint64_t page = page_size;
constexpr std::uint64_t file_size = 36 * page + 1234;  // no multiple of any disk's blocks

std::uint64_t pages_in_system_cache(int descriptor) {
  void* mapped = ::mmap(nullptr, file_size, PROT_READ, MAP_SHARED, descriptor, 0);
  EXPECT_NE(mapped, MAP_FAILED);
  std::vector<unsigned char> there(file_size / page + 1);
  EXPECT_EQ(::mincore(mapped, file_size, there.data()), 0);
  ::munmap(mapped, file_size);
  return static_cast<std::uint64_t>(std::count_if(there.begin(), there.end(), [](auto each) { return each & 1; }));
}

class DirectFileTest : public page_cache_test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "larder-direct-XXXXXX";
    descriptor_ = ::mkstemp(path_.data());
    ASSERT_GE(descriptor_, 0);
    ASSERT_EQ(::ftruncate(descriptor_, file_size), 0);
    const auto tried = file_backing::open(path_, false, file_transfer::direct);
    if (!tried && tried.error() == std::errc::operation_not_supported) GTEST_SKIP() << path_ << " cannot be direct";
    ASSERT_TRUE(tried) << tried.error().message();
  }
  void TearDown() override {
    page_cache_test::TearDown();
    ::close(descriptor_);
    ::unlink(path_.c_str());
  }
  std::unique_ptr<file_backing> open_direct(bool read_only = false) {
    auto opened = file_backing::open(path_, read_only, file_transfer::direct);
    EXPECT_TRUE(opened) << opened.error().message();
    return *std::move(opened);
  }
  // What another program would read.
  std::vector<std::byte> contents() {
    std::vector<std::byte> all(file_size);
    std::ifstream(path_, std::ios::binary).read(reinterpret_cast<char*>(all.data()), file_size);
    return all;
  }
  static std::vector<std::byte> noise(std::size_t length, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> made(length);
    std::generate(made.begin(), made.end(), [&random] { return static_cast<std::byte>(random()); });
    return made;
  }

  std::string path_;
  int descriptor_ = -1;
};

// Any offset, any addresses, any lengths, against the bytes that ought to be there.
TEST_F(DirectFileTest, WhateverIsNotAlignedIsTransferredToo) {
  const auto disk = open_direct();
  EXPECT_EQ(disk->size().count, file_size);
  std::vector<std::byte> expected(file_size);
  std::unique_ptr<std::byte, decltype(&std::free)> memory(static_cast<std::byte*>(std::aligned_alloc(page, 16 * page)),
                                                          std::free);
  std::mt19937_64 random(7);
  constexpr std::array<std::uint64_t, 4> grains{1, 512, page, page};
  for (int round = 0; round < 400; ++round) {
    const std::uint64_t grain = grains[random() % grains.size()];
    std::array<iovec, 3> vectors{};
    const std::uint64_t offset = random() % file_size / grain * grain;
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      std::uint64_t part = random() % (4 * page) / grain * grain;
      if (i + 1 == vectors.size() || offset + length + part > file_size)
        part = std::min(4 * page, file_size - offset - length);
      vectors[i] = {memory.get() + i * 5 * page + random() % 2 * (grain - 1), part};
      length += part;
    }
    const auto at = expected.begin() + static_cast<std::ptrdiff_t>(offset);
    if (random() % 2 == 0) {
      auto from = at;
      for (const iovec& each : vectors) {
        const auto some = noise(each.iov_len, random());
        std::copy(some.begin(), some.end(), static_cast<std::byte*>(each.iov_base));
        from = std::copy(some.begin(), some.end(), from);
      }
      ASSERT_TRUE(disk->write(vectors, offset));
    } else {
      ASSERT_TRUE(disk->read(vectors, offset));
      auto from = at;
      for (const iovec& each : vectors) {
        ASSERT_TRUE(std::equal(from, from + static_cast<std::ptrdiff_t>(each.iov_len),
                               static_cast<const std::byte*>(each.iov_base)))
            << "round " << round;
        from += static_cast<std::ptrdiff_t>(each.iov_len);
      }
    }
  }
  EXPECT_EQ(contents(), expected);
}

TEST_F(DirectFileTest, IsCachedOnThreadsAndTasks) {
  for (const std::uint64_t length : {page, 16 * page}) {
    page_size_ = bytes{length};
    make_fixed_cache(8);
    const auto disk = open_direct();
    auto file = open(*disk);
    auto expected = noise(file_size, length);
    const auto exercise = [&](std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t at = from; at < to; at += 1000) {
        const std::size_t some = std::min<std::uint64_t>(1000, to - at);
        EXPECT_TRUE(file->write(at, std::span(expected).subspan(at, some)));
      }
      std::vector<std::byte> found(to - from);
      EXPECT_TRUE(file->read(from, found));
      EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin() + static_cast<std::ptrdiff_t>(from)));
    };
    exercise(0, 20 * page + 77);
    auto runtime = runtime::create("direct", {.workers = 1});
    ASSERT_TRUE(runtime);
    (*runtime)->spawn_detached([&] { exercise(20 * page + 77, file_size); });
    runtime->reset();
    ASSERT_TRUE(file->flush());
    EXPECT_EQ(contents(), expected);
    ASSERT_TRUE(file->discard(8 * page + 5, bytes{file_size - 8 * page - 5}));
    ASSERT_TRUE(file->flush());
    std::fill(expected.begin() + 8 * page + 5, expected.end(), std::byte{0});
    EXPECT_EQ(contents(), expected);
    file.reset();
    cache_->audit();
    cache_.reset();
  }
}

TEST_F(DirectFileTest, IsNotHeldInTheSystemsMemoryToo) {
  const auto data = noise(file_size, 3);
  ASSERT_EQ(::pwrite(descriptor_, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  ASSERT_EQ(::fsync(descriptor_), 0);
  ASSERT_EQ(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED), 0);
  if (pages_in_system_cache(descriptor_) != 0) GTEST_SKIP() << "this file system keeps its pages";
  make_cache(64, 2_MiB);
  const auto disk = open_direct(true);
  auto file = open(*disk);
  std::vector<std::byte> found(file_size);
  ASSERT_TRUE(file->read(0, found));
  EXPECT_EQ(found, data);
  EXPECT_LE(pages_in_system_cache(descriptor_), 1U) << "the end is buffered";
}

// KF-48 for the direct descriptor and the rest.
TEST_F(DirectFileTest, NothingIsLostWhenACallFails) {
  const auto expected = noise(file_size, 4);
  for (const os::call call : {os::call::open, os::call::stat, os::call::read, os::call::write, os::call::sync}) {
    bool fired = true;
    for (std::uint64_t nth = 1; fired && !HasFatalFailure(); ++nth) {
      make_fixed_cache(8);
      os::fault::arm(call, nth, EIO);
      if (auto disk = file_backing::open(path_, false, file_transfer::direct); disk) {
        auto file = open(**disk);
        for (std::uint64_t at = 0; at < file_size; at += 3000) {
          const auto some = std::span(expected).subspan(at, std::min<std::uint64_t>(3000, file_size - at));
          // What failed is done again, once the fault is over.
          ASSERT_TRUE(file->write(at, some) || file->write(at, some));
        }
        (void)file->flush();
        os::fault::disarm();
        ASSERT_TRUE(file->flush());
        EXPECT_EQ(contents(), expected);
      } else {
        EXPECT_EQ(disk.error(), error_from(EIO));
      }
      os::fault::disarm();
      fired = os::fault::fired();
      cache_.reset();
      EXPECT_EQ(budget_->used().count, 0U);
    }
  }
}

TEST(FileWithoutDirectTransferTest, SaysSo) {
  EXPECT_EQ(file_backing::open("/proc/version", true, file_transfer::direct).error(), error_from(EOPNOTSUPP));
}

}  // namespace
}  // namespace larder::page

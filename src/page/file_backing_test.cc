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

class ManyWritesTest : public DirectFileTest {
 protected:
  // A worker's task does it if `on_task`, else this thread.
  template <typename Body>
  static void run(bool on_task, Body body) {
    if (!on_task) return body();
    auto started = runtime::create("writes", {.workers = 1});
    ASSERT_TRUE(started);
    (*started)->spawn(body).join();
  }
  // Cuts the file into so many writes, of which each has two vectors.
  std::vector<backing_write> cut(std::uint64_t length) {
    std::vector<backing_write> made;
    vectors_.reserve(2 * (file_size / length + 1));
    for (std::uint64_t at = 0; at < file_size; at += length) {
      const std::uint64_t some = std::min(length, file_size - at);
      const std::uint64_t first = some / 2 / page * page;
      vectors_.push_back({data_.get() + at, first});
      vectors_.push_back({data_.get() + at + first, some - first});
      made.push_back({.from = std::span(&vectors_.back() - 1, 2), .offset = at});
    }
    return made;
  }
  std::vector<std::byte> expected() const { return {data_.get(), data_.get() + file_size}; }
  void make_noise(std::uint64_t seed) {
    const auto made = noise(file_size, seed);
    std::copy(made.begin(), made.end(), data_.get());
    vectors_.clear();
  }

  std::unique_ptr<std::byte, decltype(&std::free)> data_{static_cast<std::byte*>(std::aligned_alloc(page, 37 * page)),
                                                         std::free};
  std::vector<iovec> vectors_;
};

// More than are under way at once, aligned or not; the last goes both ways.
TEST_F(ManyWritesTest, EachIsMadeOnThreadsAndTasks) {
  const auto disk = open_direct();
  std::uint64_t seed = 0;
  for (const bool on_task : {false, true}) {
    for (const std::uint64_t length : {std::uint64_t{1000}, page, 16 * page, 100 * page}) {
      make_noise(++seed);
      auto writes = cut(length);
      run(on_task, [&] { disk->write_many(writes); });
      for (const backing_write& each : writes) EXPECT_TRUE(each.outcome) << each.outcome.error().message();
      EXPECT_EQ(contents(), expected()) << length;
    }
  }
}

TEST_F(ManyWritesTest, EachHasAnOutcomeOfItsOwn) {
  const auto disk = open_direct();
  for (const bool on_task : {false, true}) {
    make_noise(on_task ? 7 : 8);
    auto writes = cut(4 * page);
    run(on_task, [&] {
      os::fault::arm(os::call::write, 3, ENOSPC);
      disk->write_many(writes);
      os::fault::disarm();
    });
    const auto failed = std::ranges::find_if(writes, [](const backing_write& each) { return !each.outcome; });
    ASSERT_NE(failed, writes.end());
    EXPECT_EQ(failed->outcome.error(), error_from(ENOSPC));
    EXPECT_EQ(std::ranges::count_if(writes, [](const backing_write& each) { return !each.outcome; }), 1);
    auto wanted = expected();
    for (const iovec& each : failed->from) {
      const auto at = static_cast<std::byte*>(each.iov_base) - data_.get();
      std::fill_n(wanted.begin() + at, each.iov_len, std::byte{0});
    }
    EXPECT_EQ(contents(), wanted) << "the others are made";
    disk->write_many(std::span(&*failed, 1));
    EXPECT_TRUE(failed->outcome) << "the one of before is forgotten";
    EXPECT_EQ(contents(), expected());
    ASSERT_EQ(::ftruncate(descriptor_, 0), 0);
    ASSERT_EQ(::ftruncate(descriptor_, file_size), 0);
  }
}

TEST_F(ManyWritesTest, InterruptedOneIsMadeAgain) {
  const auto disk = open_direct();
  make_noise(9);
  auto writes = cut(4 * page);
  run(true, [&] {
    os::fault::arm(os::call::write, 2, EAGAIN);
    disk->write_many(std::span(writes).first(9));  // each of them goes one way
    os::fault::disarm();
    disk->write_many(std::span(writes).subspan(9));
  });
  EXPECT_TRUE(os::fault::fired());
  for (const backing_write& each : writes) EXPECT_TRUE(each.outcome);
  EXPECT_EQ(contents(), expected());
}

// One call takes 64 vectors: the rest is for a second.
TEST_F(ManyWritesTest, OneThatIsCutShortIsMadeAgain) {
  const auto disk = open_direct();
  make_noise(10);
  constexpr std::uint64_t piece = 200;
  std::vector<backing_write> writes;
  for (std::uint64_t at = 0; at < file_size; at += piece) {
    vectors_.push_back({data_.get() + at, std::min(piece, file_size - at)});
  }
  for (std::size_t first = 0; first < vectors_.size(); first += 100) {
    const std::size_t count = std::min<std::size_t>(100, vectors_.size() - first);
    writes.push_back({.from = std::span(vectors_).subspan(first, count), .offset = first * piece});
  }
  run(true, [&] { disk->write_many(writes); });
  for (const backing_write& each : writes) EXPECT_TRUE(each.outcome);
  EXPECT_EQ(contents(), expected());
}

// More than a ring has entries, and than one of that size can have under way.
TEST_F(ManyWritesTest, TasksWithMoreWritesThanTheRingHasRoom) {
  const auto disk = open_direct();
  make_noise(11);
  auto writes = cut(page);
  auto started = runtime::create("writes", {.workers = 1, .ring_entries = 4});
  ASSERT_TRUE(started);
  std::vector<task> tasks;
  for (std::size_t first = 0; first < writes.size(); first += 8) {
    tasks.push_back((*started)->spawn([&, first] {
      EXPECT_EQ(disk->writes_at_once(), 16U);
      disk->write_many(std::span(writes).subspan(first, std::min<std::size_t>(8, writes.size() - first)));
    }));
  }
  for (task& each : tasks) each.join();
  EXPECT_EQ(disk->writes_at_once(), 1U);
  EXPECT_EQ(contents(), expected());
}

TEST_F(ManyWritesTest, AreRefusedIfReadOnly) {
  const auto disk = open_direct(true);
  auto writes = cut(16 * page);
  disk->write_many(writes);
  for (const backing_write& each : writes) EXPECT_EQ(each.outcome.error(), error_from(EROFS));
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

// KF-48 for writes that are under way together.
TEST_F(ManyWritesTest, NothingIsLostOfACacheWhenOneFails) {
  run(true, [&] {
    bool fired = true;
    for (std::uint64_t nth = 1; fired && !HasFatalFailure(); ++nth) {
      make_fixed_cache(16);
      const auto disk = open_direct();
      auto file = open(*disk);
      auto expected = contents();
      os::fault::arm(os::call::write, nth, EIO);
      for (std::uint64_t at = nth % 2 * page; at < file_size; at += 2 * page) {  // so that no two are neighbours
        const auto some = noise(std::min(page, file_size - at), nth + at);
        ASSERT_TRUE(file->write(at, some) || file->write(at, some));
        std::copy(some.begin(), some.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
      }
      (void)file->flush();
      os::fault::disarm();
      fired = os::fault::fired();
      ASSERT_TRUE(file->flush());
      EXPECT_EQ(contents(), expected);
      file.reset();
      cache_->audit();
      cache_.reset();
    }
  });
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

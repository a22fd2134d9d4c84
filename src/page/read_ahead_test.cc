// SPDX-License-Identifier: Apache-2.0
#include "page/read_ahead.h"

#include <algorithm>
#include <random>

#include "page/page_test.h"

namespace larder::page {
namespace {

TEST(ReadAheadStreamsTest, WindowDoublesWhileMissesGoOn) {
  read_ahead_streams streams;
  EXPECT_EQ(streams.note_miss(0, 1, 32, 128), 0U) << "one miss is no stream";
  EXPECT_EQ(streams.note_miss(1, 2, 32, 128), 4U);
  streams.note_read(2, 4);
  EXPECT_EQ(streams.note_miss(6, 7, 32, 128), 8U);
  streams.note_read(7, 8);
  EXPECT_EQ(streams.note_miss(15, 16, 32, 128), 16U);
  streams.note_read(16, 16);
  EXPECT_EQ(streams.note_miss(32, 33, 20, 128), 20U) << "no more than there may be";
  EXPECT_EQ(streams.note_miss(100, 101, 32, 128), 0U);
}

TEST(ReadAheadStreamsTest, FourStreamsAreToldApart) {
  read_ahead_streams streams;
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t stream = 0; stream < 4; ++stream) {
      const std::uint64_t at = stream * 1000 + round;
      EXPECT_EQ(streams.note_miss(at, at + 1, 32, 128), round == 0 ? 0U : 2U << round);
    }
  }
  (void)streams.note_miss(9000, 9001, 32, 128);  // takes the place of the first
  EXPECT_EQ(streams.note_miss(1003, 1004, 32, 128), 16U);
  EXPECT_EQ(streams.note_miss(3, 4, 32, 128), 0U);
}

TEST(ReadAheadStreamsTest, RoomIsForAllThatGoOn) {
  read_ahead_streams streams;
  (void)streams.note_miss(0, 1, 32, 9);
  EXPECT_EQ(streams.note_miss(1, 2, 32, 9), 4U);
  streams.note_read(2, 4);
  EXPECT_EQ(streams.note_miss(6, 7, 32, 9), 8U);
  streams.note_read(7, 8);
  EXPECT_EQ(streams.note_miss(15, 16, 32, 9), 16U) << "it is alone";
  streams.note_read(16, 16);
  (void)streams.note_miss(1000, 1001, 32, 9);
  EXPECT_EQ(streams.note_miss(1001, 1002, 32, 9), 4U);
  EXPECT_EQ(streams.note_miss(32, 33, 32, 9), 4U) << "half of the room";
  EXPECT_EQ(streams.note_miss(33, 34, 32, 1), 0U);
  for (std::uint64_t other = 2000; other < 2160; other += 10) (void)streams.note_miss(other, other + 1, 32, 9);
  for (std::uint64_t number = 3000; number < 3002; ++number) (void)streams.note_miss(number, number + 1, 32, 9);
  EXPECT_EQ(streams.note_miss(3002, 3003, 32, 9), 8U) << "alone again";
}

class ReadAheadTest : public page_cache_test, public ::testing::WithParamInterface<eviction_policy> {
 protected:
  ReadAheadTest() {
    policy_ = GetParam();
    make_fixed_cache(64);
    disk_.fill(std::byte{5});
    file_ = open(disk_);
  }
  void touch(std::uint64_t number) { EXPECT_EQ(value_at(*file_, number * page), 5); }
  page_cache_stats stats() const { return cache_->stats(); }
  void TearDown() override {
    file_.reset();
    page_cache_test::TearDown();
  }

  static constexpr std::uint64_t pages = 1000;
  test_disk disk_{pages * page - 100};
  std::unique_ptr<cached_file> file_;
};

TEST_P(ReadAheadTest, AscendingReaderMakesFewReads) {
  for (std::uint64_t number = 0; number < pages; ++number) touch(number);
  EXPECT_LE(disk_.reads, pages / 8);
  EXPECT_EQ(stats().pages_read, pages) << "each page once, and none beyond the end";
  EXPECT_GE(stats().pages_read_ahead, pages * 8 / 10);
  EXPECT_EQ(stats().read_ahead_hits, stats().pages_read_ahead);
}

// Each page is read once, however small the room for new pages is: a tenth with S3-FIFO, so 6.
TEST_P(ReadAheadTest, InterleavedReadersInASmallCacheLeaveEachOthersPages) {
  for (std::uint64_t number = 0; number < 330; ++number) {
    for (std::uint64_t stream = 0; stream < 3; ++stream) touch(stream * 330 + number);
  }
  EXPECT_LE(stats().pages_read, 3U * 330U * 102 / 100);
  EXPECT_LE(disk_.reads, 3U * 330U / 2U);
}

TEST_P(ReadAheadTest, InterleavedReadersMakeFewReads) {
  file_.reset();
  cache_.reset();
  make_fixed_cache(640);
  file_ = open(disk_);
  for (std::uint64_t number = 0; number < 330; ++number) {
    for (std::uint64_t stream = 0; stream < 3; ++stream) touch(stream * 330 + number);
  }
  EXPECT_LE(disk_.reads, 3U * 330U / 4U);
}

TEST_P(ReadAheadTest, RandomReaderReadsWhatItAsksFor) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) touch(random() % (pages / 2) * 2);
  EXPECT_EQ(stats().pages_read_ahead, 0U);
  EXPECT_EQ(stats().pages_read, disk_.reads);
}

TEST_P(ReadAheadTest, NothingIsReadAheadForWhoeverCannotSpareIt) {
  pin_admission all = admit(63);
  for (std::uint64_t number = 0; number < 20; ++number) touch(number);
  EXPECT_EQ(stats().pages_read_ahead, 0U) << "no credits are left";
  all.reset();
  touch(20);
  EXPECT_GT(stats().pages_read_ahead, 0U);
}

TEST_P(ReadAheadTest, DirtyPagesAreNotWrittenForIt) {
  ASSERT_TRUE(file_->write(500 * page, filled(64 * page, 5)));
  const std::uint64_t writes = disk_.writes;
  pin_admission admission = admit(1);
  for (std::uint64_t number = 500; number < 564; ++number) {
    if (file_->resident(number * page, bytes{1})) {
      auto held = file_->pin(number, access::modify, admission);
      ASSERT_TRUE(held);
      held->mark_dirty();
    }
  }
  const std::uint64_t before = stats().pages_dirty;
  touch(0);
  touch(1);
  EXPECT_LE(disk_.writes, writes + 3) << "one for each page that was asked for, at most";
  EXPECT_GT(before, 0U);
  ASSERT_TRUE(file_->flush());
}

TEST_P(ReadAheadTest, ErrorBeyondWhatWasAskedForIsNobodys) {
  touch(0);
  disk_.fail_read_at = 3 * page;
  touch(1);
  touch(2);
  EXPECT_EQ(stats().pages_read_ahead, 0U);
  std::byte one{};
  EXPECT_EQ(file_->read(3 * page, std::span(&one, 1)).error(), error_from(EIO));
  disk_.fail_read_at = test_disk::nowhere;
  touch(3);
}

TEST_P(ReadAheadTest, PagesNeverUsedLeaveBeforeThoseThatWereHit) {
  for (int times = 0; times < 4; ++times) {
    for (std::uint64_t number = 0; number < 40; number += 2) touch(number);
  }
  touch(500);
  touch(501);  // 502 to 505 are read ahead
  ASSERT_TRUE(file_->resident(502 * page, bytes{4 * page}));
  for (std::uint64_t number = 600; number < 760; number += 2) touch(number);
  if (GetParam() == eviction_policy::lru) return;  // the scan is newer than the hits
  EXPECT_FALSE(file_->resident(502 * page, bytes{page}));
  EXPECT_TRUE(file_->resident(2 * page, bytes{page}));
}

INSTANTIATE_TEST_SUITE_P(Policies, ReadAheadTest, ::testing::ValuesIn(eviction_policies), policy_in_name());

}  // namespace
}  // namespace larder::page

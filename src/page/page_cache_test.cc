// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>

#include <larder/stats.h>

#include "page/page_test.h"

namespace larder::page {
namespace {

using PageCacheTest = page_cache_test;

TEST_F(PageCacheTest, ReadsWhatTheBackingHolds) {
  make_fixed_cache(8);
  test_disk disk(10 * page);
  disk.fill(std::byte{7});
  auto file = open(disk);
  EXPECT_EQ(value_at(*file, 0), 7);
  EXPECT_EQ(value_at(*file, 10 * page - 1), 7);
  EXPECT_EQ(disk.reads, 2U);
  EXPECT_EQ(value_at(*file, 1), 7);
  EXPECT_EQ(disk.reads, 2U) << "a page in memory is not read again";
}

TEST_F(PageCacheTest, NeighbouringMissesAreReadWithOneRead) {
  make_fixed_cache(32);
  test_disk disk(64 * page);
  auto file = open(disk);
  pin_admission admission = admit(16);
  std::vector<page_ref> pages(16);
  ASSERT_TRUE(file->pin_range(3, pages, access::read, admission));
  EXPECT_EQ(disk.reads, 1U);
  EXPECT_EQ(admission.available(), 0U);
  for (page_ref& each : pages) each.reset();
  EXPECT_EQ(admission.available(), 16U);
  EXPECT_EQ(cache_->stats().pages_read, 16U);
}

TEST_F(PageCacheTest, NeighbouringDirtyPagesLeaveInOneWrite) {
  make_fixed_cache(64);
  test_disk disk(64 * page);
  auto file = open(disk);
  for (std::uint64_t number : {5U, 3U, 4U, 7U, 6U}) ASSERT_TRUE(file->write(number * page, filled(page, 1)));
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.writes, 1U);
  EXPECT_EQ(disk.flushes, 1U);
  EXPECT_EQ(cache_->stats().pages_written, 5U);
}

// Whatever makes them leave: the share that may be dirty, a flush, or the lack of frames.
TEST_F(PageCacheTest, WhatIsWrittenFromEndToEndLeavesInLargeWrites) {
  constexpr std::uint64_t pages = 2048;
  for (const std::uint32_t percent : {50U, 100U}) {
    dirty_percent_ = percent;
    make_fixed_cache(512);
    test_disk disk(pages * page);
    auto file = open(disk);
    for (std::uint64_t first = 0; first < pages; first += 16) {
      ASSERT_TRUE(file->write(first * page, filled(16 * page, 1)));
    }
    ASSERT_TRUE(file->flush());
    EXPECT_EQ(disk.contents(), filled(pages * page, 1));
    EXPECT_LE(disk.writes, pages / 48) << percent;
    file.reset();
    cache_.reset();
  }
}

TEST_F(PageCacheTest, PartialWriteOfAMissingPageKeepsTheOtherBytes) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  ASSERT_TRUE(file->write(page + 100, filled(50, 1)));
  EXPECT_EQ(value_at(*file, page + 99), 9);
  EXPECT_EQ(value_at(*file, page + 100), 1);
  EXPECT_EQ(value_at(*file, page + 149), 1);
  EXPECT_EQ(value_at(*file, page + 150), 9);
  ASSERT_TRUE(file->flush());
  const auto on_disk = disk.contents();
  EXPECT_EQ(on_disk[page + 99], std::byte{9});
  EXPECT_EQ(on_disk[page + 149], std::byte{1});
  EXPECT_EQ(on_disk[2 * page - 1], std::byte{9});
}

TEST_F(PageCacheTest, WholePageIsOverwrittenWithoutReadingIt) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(2 * page, 1)));
  EXPECT_EQ(disk.reads, 0U);
  file->abandon();
}

TEST_F(PageCacheTest, FreshPageThatIsNotWrittenIsDropped) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  pin_admission admission = admit(1);
  {
    auto pinned = file->pin(1, access::overwrite, admission);
    ASSERT_TRUE(pinned);
    ASSERT_TRUE(pinned->fresh());
    std::memset(pinned->data().data(), 1, page);
    EXPECT_FALSE(file->resident(page, bytes{page}));
  }
  EXPECT_EQ(value_at(*file, page), 9);
}

TEST_F(PageCacheTest, FailedFillOfAFreshPageLeavesItFresh) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  pin_admission admission = admit(1);
  {
    auto pinned = file->pin(1, access::overwrite, admission);
    ASSERT_TRUE(pinned);
    disk.fail_reads = true;
    EXPECT_EQ(pinned->written(10, 20).error(), error_from(EIO));
    EXPECT_TRUE(pinned->fresh());
  }
  disk.fail_reads = false;
  EXPECT_EQ(value_at(*file, page + 15), 9);
}

TEST_F(PageCacheTest, OverwriteOfAResidentPageIsNotFresh) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  ASSERT_TRUE(file->read_ahead(0, bytes{page}));
  pin_admission admission = admit(1);
  {
    auto pinned = file->pin(0, access::overwrite, admission);
    ASSERT_TRUE(pinned);
    EXPECT_FALSE(pinned->fresh());
    pinned->data()[3] = std::byte{4};
    ASSERT_TRUE(pinned->written(3, 4));
  }
  EXPECT_EQ(value_at(*file, 2), 9);
  EXPECT_EQ(value_at(*file, 3), 4);
  ASSERT_TRUE(file->flush());
}

TEST_F(PageCacheTest, TryPinFindsOnlyWhatIsThere) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  auto file = open(disk);
  pin_admission admission = admit(1);
  EXPECT_FALSE(file->try_pin(0, admission));
  EXPECT_FALSE(file->try_pin(4, admission));
  ASSERT_TRUE(file->read_ahead(0, bytes{page}, &admission));
  EXPECT_TRUE(file->try_pin(0, admission));
  EXPECT_EQ(admission.available(), 1U);
}

TEST_F(PageCacheTest, TryReadReadsWhatIsThereAndNothingElse) {
  make_fixed_cache(8);
  test_disk disk(4 * page + 10);
  disk.fill(std::byte{9});
  auto file = open(disk);
  auto into = filled(64, 0);
  EXPECT_FALSE(file->try_read(100, into)) << "not in memory";
  ASSERT_TRUE(file->read_ahead(0, bytes{4 * page + 10}));
  EXPECT_TRUE(file->try_read(100, into));
  EXPECT_EQ(into, filled(64, 9));
  EXPECT_TRUE(file->try_read(page - 64, into));
  EXPECT_FALSE(file->try_read(page - 63, into)) << "in two pages";
  EXPECT_FALSE(file->try_read(4 * page, into)) << "beyond the end";
  EXPECT_TRUE(file->try_read(4 * page + 9, std::span(into).first(1)));
  ASSERT_TRUE(file->write(200, filled(1, 3)));
  EXPECT_TRUE(file->try_read(200, std::span(into).first(1)));
  EXPECT_EQ(into[0], std::byte{3});
  ASSERT_TRUE(file->discard(0, bytes{page}));
  EXPECT_FALSE(file->try_read(100, into));
  ASSERT_TRUE(file->flush());
}

// A page that is read without a pin stays as one that is pinned.
TEST_F(PageCacheTest, TryReadIsAHit) {
  for (const eviction_policy policy : {eviction_policy::sieve, eviction_policy::s3_fifo, eviction_policy::clock}) {
    policy_ = policy;
    make_fixed_cache(16);
    test_disk disk(1000 * page);
    auto file = open(disk);
    auto into = filled(1, 0);
    ASSERT_TRUE(file->read_ahead(0, bytes{page}));
    for (std::uint64_t number = 2; number < 100; number += 2) {
      for (int times = 0; times < 3; ++times) EXPECT_TRUE(file->try_read(0, into)) << name_of(policy) << number;
      ASSERT_TRUE(file->read_ahead(number * page, bytes{page}));
    }
    file.reset();
    cache_.reset();
  }
}

TEST_F(PageCacheTest, LastPageOfAnOddSizeIsNeverWrittenBeyondTheEnd) {
  make_fixed_cache(4);
  test_disk disk(2 * page + 100);
  disk.fill(std::byte{9});
  auto file = open(disk);
  pin_admission admission = admit(1);
  {
    auto pinned = file->pin(2, access::modify, admission);
    ASSERT_TRUE(pinned);
    EXPECT_EQ(pinned->data().size(), 100U);
    EXPECT_EQ(pinned->data()[99], std::byte{9});
    pinned->data()[99] = std::byte{1};
    pinned->mark_dirty();
  }
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.contents().back(), std::byte{1});
  auto two = filled(2, 0);
  EXPECT_EQ(file->read(2 * page + 99, two).error(), error_from(EINVAL));
  EXPECT_EQ(file->pin(3, access::read, admission).error(), error_from(EINVAL));
  ASSERT_TRUE(file->discard(2 * page, bytes{100}));
  EXPECT_EQ(disk.contents().back(), std::byte{0});
}

TEST_F(PageCacheTest, ReadErrorReachesTheCallerAndTheNextReadTriesAgain) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  disk.fail_reads = true;
  EXPECT_EQ(file->read_ahead(0, bytes{4 * page}).error(), error_from(EIO));
  EXPECT_FALSE(file->resident(0, bytes{1}));
  disk.fail_reads = false;
  EXPECT_EQ(value_at(*file, 0), 9);
}

// KF-56
TEST_F(PageCacheTest, FailedWriteStaysDirtyAndEveryFlushSaysSoUntilOneSucceeds) {
  make_fixed_cache(8);
  test_disk disk(4 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(2 * page, 1)));
  disk.fail_writes = true;
  EXPECT_EQ(file->flush().error(), error_from(EIO));
  EXPECT_EQ(file->flush().error(), error_from(EIO));
  EXPECT_EQ(file->flush_range(page, bytes{1}).error(), error_from(EIO));
  EXPECT_EQ(cache_->stats().pages_dirty, 2U);
  cache_->audit();
  disk.fail_writes = false;
  EXPECT_TRUE(file->flush());
  EXPECT_EQ(cache_->stats().pages_dirty, 0U);
  EXPECT_EQ(disk.contents()[page], std::byte{1});
  disk.fail_flushes = true;
  EXPECT_EQ(file->flush().error(), error_from(EIO));
  disk.fail_flushes = false;
  EXPECT_TRUE(file->flush());
}

// KF-56: nor does eviction lose a page that cannot be written; who needs a frame hears of it.
TEST_F(PageCacheTest, PagesThatCannotBeWrittenAreNotEvicted) {
  make_fixed_cache(4);
  test_disk disk(16 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(4 * page, 1)));
  disk.fail_writes = true;
  EXPECT_EQ(file->read_ahead(8 * page, bytes{page}).error(), error_from(EIO));
  cache_->audit();
  disk.fail_writes = false;
  ASSERT_TRUE(file->read_ahead(8 * page, bytes{4 * page}));
  EXPECT_EQ(disk.contents()[3 * page], std::byte{1});
  ASSERT_TRUE(file->flush());
}

// A failing file does not keep another's pages from being written to make room.
TEST_F(PageCacheTest, BadDiskDoesNotStarveAGoodOne) {
  make_fixed_cache(8);
  test_disk bad(16 * page);
  test_disk good(16 * page);
  auto bad_file = open(bad);
  auto good_file = open(good);
  ASSERT_TRUE(bad_file->write(0, filled(3 * page, 1)));
  bad.fail_writes = true;
  for (std::uint64_t round = 0; round < 32; ++round) {
    ASSERT_TRUE(good_file->write(round % 16 * page, filled(page, 2)));
    cache_->audit();
  }
  ASSERT_TRUE(good_file->flush());
  EXPECT_FALSE(bad_file->flush());
  bad_file->abandon();
}

TEST_F(PageCacheTest, FlushRangeWritesThatRangeOnly) {
  make_fixed_cache(16);
  test_disk disk(16 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(page, 1)));
  ASSERT_TRUE(file->write(4 * page, filled(page, 1)));
  ASSERT_TRUE(file->flush_range(4 * page + 10, bytes{10}));
  EXPECT_EQ(disk.contents()[4 * page], std::byte{1});
  EXPECT_EQ(disk.contents()[0], std::byte{0});
  EXPECT_EQ(cache_->stats().pages_dirty, 1U);
  ASSERT_TRUE(file->flush());
}

TEST_F(PageCacheTest, WritersKeepDirtyPagesAtHalf) {
  make_fixed_cache(64);
  test_disk disk(256 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < 256; ++number) {
    ASSERT_TRUE(file->write(number * page, filled(page, 1)));
    EXPECT_LE(cache_->stats().pages_dirty, 33U);
  }
  ASSERT_TRUE(file->flush());
}

TEST_F(PageCacheTest, DirtyShareIsAnOption) {
  for (const std::uint32_t percent : {0U, 25U, 90U}) {
    dirty_percent_ = percent;
    make_fixed_cache(100);
    test_disk disk(256 * page);
    auto file = open(disk);
    std::uint32_t most = 0;
    for (std::uint64_t number = 0; number < 256; ++number) {
      ASSERT_TRUE(file->write(number * page, filled(page, 1)));
      most = std::max(most, cache_->stats().pages_dirty);
    }
    EXPECT_EQ(most, percent + 1);
    ASSERT_TRUE(file->flush());
    file.reset();
    cache_.reset();
  }
}

// What was dirtied at random leaves in batches, each in ascending order, and by a flush too.
TEST_F(PageCacheTest, PagesDirtiedAtRandomLeaveInAscendingRuns) {
  make_fixed_cache(256);
  constexpr std::uint64_t pages = 4096;
  test_disk disk(pages * page);
  auto file = open(disk);
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(file->write(random() % pages * page, filled(page, 1)));
  ASSERT_TRUE(file->flush());
  const auto descents = [&] {
    std::size_t count = 0;
    for (std::size_t i = 1; i < disk.write_order.size(); ++i) {
      if (disk.write_order[i] < disk.write_order[i - 1]) ++count;
    }
    return count;
  };
  EXPECT_GT(disk.write_order.size(), 500U);
  EXPECT_LE(descents(), disk.write_order.size() / 16);
}

TEST_F(PageCacheTest, DiscardDropsDirtyPagesAndZeroesTheEdges) {
  make_fixed_cache(16);
  test_disk disk(16 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(5 * page, 1)));
  ASSERT_TRUE(file->discard(page / 2, bytes{4 * page}));
  EXPECT_EQ(value_at(*file, page / 2 - 1), 1);
  for (std::uint64_t at = page / 2; at < page / 2 + 4 * page; at += 512) EXPECT_EQ(value_at(*file, at), 0);
  EXPECT_EQ(value_at(*file, page / 2 + 4 * page), 1);
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.contents()[2 * page], std::byte{0});
  EXPECT_EQ(disk.contents()[page / 2 + 4 * page], std::byte{1});
}

TEST_F(PageCacheTest, LargeDiscardOfAnUncachedRangeLooksAtFramesOnly) {
  make_fixed_cache(8);
  test_disk disk(std::uint64_t{1} << 36);  // 2^24 pages: looking each up takes seconds
  auto file = open(disk);
  const std::uint64_t middle = std::uint64_t{1} << 35;
  ASSERT_TRUE(file->write(middle, filled(page, 1)));
  ASSERT_TRUE(file->discard(0, disk.size()));
  EXPECT_EQ(value_at(*file, middle), 0);
  ASSERT_TRUE(file->flush());
}

TEST_F(PageCacheTest, ZeroThroughTheCacheWhereTheBackingCannot) {
  make_fixed_cache(8);
  test_disk disk(32 * page, false);
  disk.fill(std::byte{9});
  auto file = open(disk);
  ASSERT_TRUE(file->zero(100, bytes{20 * page}, true));
  ASSERT_TRUE(file->flush());
  const auto on_disk = disk.contents();
  EXPECT_EQ(on_disk[99], std::byte{9});
  EXPECT_EQ(on_disk[100], std::byte{0});
  EXPECT_EQ(on_disk[20 * page + 99], std::byte{0});
  EXPECT_EQ(on_disk[20 * page + 100], std::byte{9});
}

TEST_F(PageCacheTest, DiscardZeroesPagesThatArePinned) {
  make_fixed_cache(8);
  test_disk disk(8 * page);
  disk.fill(std::byte{9});
  auto file = open(disk);
  pin_admission admission = admit(1);
  auto pinned = file->pin(1, access::read, admission);
  ASSERT_TRUE(pinned);
  ASSERT_TRUE(file->discard(0, disk.size()));
  EXPECT_EQ(pinned->data()[0], std::byte{0});
  EXPECT_EQ(cache_->stats().pages_dirty, 0U);
  pinned->reset();
}

TEST_F(PageCacheTest, SecondFlushWithNothingDirtyWritesNothing) {
  make_fixed_cache(8);
  test_disk disk(8 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(10, 1)));
  ASSERT_TRUE(file->flush());
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.writes, 1U);
  EXPECT_EQ(disk.flushes, 2U) << "what others wrote to the backing is made durable too";
}

TEST_F(PageCacheTest, PagesAreOfTheSizeThatWasChosen) {
  page_size_ = 64_KiB;
  make_fixed_cache(4);
  EXPECT_EQ(budget_->used().count,
            page_cache::least_memory({.guaranteed_pages = 4, .limit = 256_KiB, .page_size = 64_KiB}).count);
  test_disk disk(200'000);
  disk.fill(std::byte{9});
  auto file = open(disk);
  EXPECT_EQ(file->page_size(), 64_KiB);
  pin_admission admission = admit(1);
  auto first = file->pin(1, access::read, admission);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->data().size(), 65'536U);
  EXPECT_EQ(first->data().back(), std::byte{9});
  first->reset();
  auto last = file->pin(3, access::read, admission);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->data().size(), 200'000U - 3 * 65'536U);
  last->reset();
  EXPECT_EQ(file->pin(4, access::read, admission).error(), error_from(EINVAL));
}

TEST_F(PageCacheTest, OptionsThatMakeNoSenseAreRefused) {
  budget_ = std::make_unique<memory_budget>("test", memory_budget::options{.limit = 4_MiB});
  for (const bytes size : {0_B, 2_KiB, 5000_B, 12_KiB, 128_KiB}) {
    EXPECT_EQ(page_cache::create("x", {.budget = budget_.get(), .page_size = size}).error(), error_from(EINVAL));
  }
  const auto no_policy = static_cast<eviction_policy>(9);
  EXPECT_EQ(page_cache::create("x", {.budget = budget_.get(), .policy = no_policy}).error(), error_from(EINVAL));
  EXPECT_EQ(page_cache::create("x", {.budget = budget_.get(), .dirty_percent = 101}).error(), error_from(EINVAL));
}

TEST_F(PageCacheTest, GuaranteedPagesMustFit) {
  memory_budget small("small", {.limit = bytes{20 * page}});
  EXPECT_EQ(page_cache::create("x", {.budget = &small, .guaranteed_pages = 64}).error(), error_from(ENOMEM));
  EXPECT_EQ(page_cache::create("x", {.budget = &small, .guaranteed_pages = 0}).error(), error_from(EINVAL));
  EXPECT_EQ(small.used().count, 0U);
  const bytes least = page_cache::least_memory({.budget = &small, .guaranteed_pages = 4});
  EXPECT_TRUE(page_cache::create("x", {.budget = &small, .guaranteed_pages = 4}));
  EXPECT_EQ(small.peak(), least);
  EXPECT_EQ(small.used().count, 0U);
}

TEST_F(PageCacheTest, FiguresAreReported) {
  make_fixed_cache(8);
  bool seen = false;
  for_each_stat([&](const larder::stat& figure) {
    seen |= figure.component == "page_cache/test" && figure.name == "pages_owned" && figure.value == 8;
  });
  EXPECT_TRUE(seen);
}

TEST_F(PageCacheTest, ClosingWithDirtyPagesDies) {
  make_fixed_cache(8);
  test_disk disk(8 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(10, 1)));
  EXPECT_DEATH(file.reset(), "pinned or dirty");
  file->abandon();
}

}  // namespace
}  // namespace larder::page

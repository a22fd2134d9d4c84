// SPDX-License-Identifier: Apache-2.0
//
// Pages that are written together: runs of neighbours, many at once.
#include "page/write_batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "page/page_test.h"
#include "tests/support/eventually.h"

namespace larder::page {
namespace {

// Notes what is asked for at once, and calls back during the first of it. Writes that begin at `fail_at` fail.
class noting_disk final : public test_disk {
 public:
  using test_disk::test_disk;
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override {
    begin({offset});
    return make(from, offset);
  }
  void write_many(std::span<backing_write> asked) override {
    std::vector<std::uint64_t> offsets;
    for (const backing_write& each : asked) offsets.push_back(each.offset);
    begin(std::move(offsets));
    // The last first: no order is promised.
    for (std::size_t i = asked.size(); i-- > 0;) {
      backing_write& each = asked[i];
      EXPECT_TRUE(each.outcome) << "before";
      each.outcome = make(each.from, each.offset);
    }
  }
  std::size_t writes_at_once() const override { return at_once; }

  std::byte at(std::uint64_t offset) { return contents()[offset]; }

  std::vector<std::vector<std::uint64_t>> batches;  // the offsets of each call's
  std::function<void()> during;
  std::uint64_t fail_at = nowhere;
  std::size_t at_once = ~std::size_t{0};

 private:
  void begin(std::vector<std::uint64_t> offsets) {
    batches.push_back(std::move(offsets));
    if (auto once = std::exchange(during, nullptr)) once();
  }
  result<void> make(std::span<const iovec> from, std::uint64_t offset) {
    return offset == fail_at ? error_from(EIO) : test_disk::write(from, offset);
  }
};

class WriteBatchTest : public page_cache_test {
 protected:
  WriteBatchTest() {
    dirty_percent_ = 100;
    make_fixed_cache(256);
  }
  void make_dirty(cached_file& file, std::initializer_list<std::uint64_t> numbers, int value = 1) {
    for (const std::uint64_t number : numbers) ASSERT_TRUE(file.write(number * page, filled(page, value)));
  }
  using offsets = std::vector<std::uint64_t>;
};

TEST_F(WriteBatchTest, RunsOfNeighboursAreWrittenAtOnce) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  make_dirty(*file, {700, 11, 3, 12, 10, 500});
  ASSERT_TRUE(file->flush());
  ASSERT_EQ(disk.batches.size(), 1U);
  EXPECT_EQ(disk.batches[0], (offsets{3 * page, 10 * page, 500 * page, 700 * page}));
  EXPECT_EQ(cache_->stats().write_backs, 4U);
  EXPECT_EQ(cache_->stats().pages_written, 6U);
  EXPECT_EQ(cache_->stats().pages_dirty, 0U);
  for (const std::uint64_t number : offsets{3, 10, 11, 12, 500, 700}) EXPECT_EQ(disk.at(number * page), std::byte{1});
}

TEST_F(WriteBatchTest, OneRunIsOneWrite) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  make_dirty(*file, {6, 7, 8});
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.batches, (std::vector<offsets>{{6 * page}}));
}

TEST_F(WriteBatchTest, AreBoundedInRunsAndInPages) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < 100; ++number) make_dirty(*file, {2 * number});
  ASSERT_TRUE(file->flush());
  std::size_t runs = 0;
  for (const offsets& each : disk.batches) {
    EXPECT_LE(each.size(), write_runs_max);
    runs += each.size();
  }
  EXPECT_EQ(runs, 100U);
  EXPECT_LE(disk.batches.size(), 7U);
  disk.batches.clear();
  for (std::uint64_t number = 0; number < 130; ++number) make_dirty(*file, {number});
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.batches, (std::vector<offsets>{offsets{0}, {write_pages_max * page}, {2 * write_pages_max * page}}));
}

// Where the backing makes one at a time, each run ends by itself.
TEST_F(WriteBatchTest, BackingThatDoesNoMoreIsAskedForOneAtATime) {
  noting_disk disk(1000 * page);
  disk.at_once = 1;
  auto file = open(disk);
  make_dirty(*file, {10, 20, 21});
  disk.during = [&] { EXPECT_EQ(cache_->stats().pages_dirty, 2U) << "the others are not begun"; };
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.batches, (std::vector<offsets>{{10 * page}, {20 * page}}));
}

// KF-56: what fails of a batch stays, and nothing else does.
TEST_F(WriteBatchTest, OfABatchOnlyTheRunThatFailedStaysDirty) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  make_dirty(*file, {10, 20, 21, 30});
  disk.fail_at = 20 * page;
  EXPECT_EQ(file->flush().error(), error_from(EIO));
  EXPECT_EQ(cache_->stats().pages_dirty, 2U);
  EXPECT_EQ(cache_->stats().pages_written, 2U);
  EXPECT_EQ(cache_->stats().write_back_errors, 1U);
  EXPECT_EQ(disk.at(30 * page), std::byte{1});
  cache_->audit();
  disk.fail_at = test_disk::nowhere;
  disk.batches.clear();
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.batches, (std::vector<offsets>{{20 * page}}));
  EXPECT_EQ(disk.at(21 * page), std::byte{1});
}

TEST_F(WriteBatchTest, PageThatIsChangedMeanwhileIsWrittenAgain) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  make_dirty(*file, {10, 20});
  pin_admission admission = admit(1);
  page_ref pinned = *file->pin(20, access::read, admission);
  disk.during = [&] { pinned.mark_dirty(); };
  ASSERT_TRUE(file->flush());
  pinned.reset();
  EXPECT_EQ(cache_->stats().pages_dirty, 1U);
  ASSERT_TRUE(file->flush());
  EXPECT_EQ(disk.batches, (std::vector<offsets>{{10 * page, 20 * page}, {20 * page}}));
}

// Two passes meet at a page: the second has its own pages written, and returns when the first's is too.
TEST_F(WriteBatchTest, PassWaitsForWhatAnotherIsWriting) {
  noting_disk disk(1000 * page);
  auto file = open(disk);
  make_dirty(*file, {20});
  std::atomic<bool> second_returned{false};
  std::thread second;
  disk.during = [&] {
    make_dirty(*file, {10, 30});
    second = std::thread([&] {
      EXPECT_TRUE(file->flush_range(0, bytes{100 * page}));
      second_returned = true;
    });
    EXPECT_TRUE(tests::eventually([&] { return cache_->stats().pages_written == 2; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // in which it could return
    EXPECT_FALSE(second_returned);
  };
  ASSERT_TRUE(file->flush_range(20 * page, bytes{page}));
  second.join();
  EXPECT_EQ(disk.batches, (std::vector<offsets>{{20 * page}, {10 * page, 30 * page}}));
}

TEST_F(WriteBatchTest, VictimIsWrittenTogetherWithWhatIsNextToGo) {
  noting_disk disk(10'000 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < 256; ++number) make_dirty(*file, {2 * number});
  ASSERT_TRUE(file->read_ahead(9'000 * page, bytes{page}));
  ASSERT_EQ(disk.batches.size(), 2U);
  EXPECT_EQ(disk.batches[0].size(), write_runs_max);
  EXPECT_EQ(disk.batches[0][0], 0U);
  EXPECT_FALSE(file->resident(0, bytes{page}));
  ASSERT_TRUE(file->flush());
}

// The frame is the victim's, and its write went well.
TEST_F(WriteBatchTest, VictimLeavesThoughAnotherOfItsBatchFails) {
  for (const std::size_t at_once : {std::size_t{1}, write_runs_max}) {
    std::uint64_t last_written = test_disk::nowhere;  // with the victim, when nothing fails
    for (const bool fails : {false, true}) {
      noting_disk disk(10'000 * page);
      disk.at_once = at_once;
      auto file = open(disk);
      for (std::uint64_t number = 0; number < 256; ++number) make_dirty(*file, {2 * number});
      if (fails) disk.fail_at = last_written;
      ASSERT_TRUE(file->read_ahead(9'000 * page, bytes{page}));
      last_written = disk.batches.back().back();
      ASSERT_NE(last_written, 0U);
      EXPECT_FALSE(file->resident(0, bytes{page}));
      EXPECT_EQ(cache_->stats().evictions, 1U);
      EXPECT_EQ(cache_->stats().write_back_errors, fails ? 1U : 0U);
      disk.fail_at = test_disk::nowhere;
      ASSERT_TRUE(file->flush());
      file.reset();
      cache_.reset();
      make_fixed_cache(256);
    }
  }
}

}  // namespace
}  // namespace larder::page

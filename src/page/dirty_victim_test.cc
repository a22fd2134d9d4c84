// SPDX-License-Identifier: Apache-2.0
//
// A page leaves in its turn whether it is dirty or not: then it is written first. Only what cannot be written, or not
// now, is passed over.
#include <functional>
#include <random>

#include "page/page_test.h"

namespace larder::page {
namespace {

// Calls back while a page is being written.
class watched_disk final : public test_disk {
 public:
  using test_disk::test_disk;
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override {
    if (on_write) on_write();
    return test_disk::write(from, offset);
  }

  std::function<void()> on_write;
};

class DirtyVictimTest : public page_cache_test, public ::testing::WithParamInterface<eviction_policy> {
 protected:
  static constexpr std::uint64_t pages = 16;

  DirtyVictimTest() {
    policy_ = GetParam();
    dirty_percent_ = 100;
    make_fixed_cache(pages);
  }
  void miss(cached_file& file, std::uint64_t number) { ASSERT_TRUE(file.read_ahead(number * page, bytes{page})); }
  // Fills the cache: the file's first page is dirty and next to go, and all after it are clean.
  std::unique_ptr<cached_file> open_with_dirty_victim(backing& disk) {
    auto file = open(disk);
    EXPECT_TRUE(file->write(0, filled(page, 1)));
    for (std::uint64_t number = 2; number < 2 * pages; number += 2) miss(*file, number);
    return file;
  }
  bool is_there(const cached_file& file, std::uint64_t number) { return file.resident(number * page, bytes{1}); }
};

TEST_P(DirtyVictimTest, IsNotPassedOverForAPageThatIsClean) {
  test_disk disk(1000 * page);
  auto file = open_with_dirty_victim(disk);
  miss(*file, 100);
  EXPECT_EQ(disk.writes, 1U);
  EXPECT_EQ(disk.contents()[0], std::byte{1});
  EXPECT_FALSE(is_there(*file, 0)) << "what was written was for its frame";
  for (std::uint64_t number = 2; number < 2 * pages; number += 2) EXPECT_TRUE(is_there(*file, number)) << number;
}

TEST_P(DirtyVictimTest, HasItsNeighboursWrittenAndTheyStay) {
  test_disk disk(1000 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < pages; ++number) ASSERT_TRUE(file->write(number * page, filled(page, 1)));
  miss(*file, 100);
  miss(*file, 102);
  EXPECT_EQ(disk.writes, 1U);
  EXPECT_EQ(cache_->stats().evictions, 2U);
  EXPECT_EQ(cache_->stats().pages_dirty, 0U);
}

// Those whose turn comes next are written with it, in one sweep; not those that were hit, nor another file's.
TEST_P(DirtyVictimTest, IsWrittenWithThoseThatFollow) {
  cache_.reset();
  make_fixed_cache(40);  // so five are looked at
  test_disk disk(1000 * page);
  auto file = open(disk);
  test_disk other_disk(1000 * page);
  auto other = open(other_disk);
  for (const std::uint64_t number : {70U, 60U, 50U, 80U}) ASSERT_TRUE(file->write(number * page, filled(page, 1)));
  ASSERT_TRUE(other->write(0, filled(page, 1)));
  for (std::uint64_t number = 5; number < 40; ++number) miss(*file, 100 + 2 * number);
  pin_admission admission = admit(1);
  for (int times = 0; times < 2; ++times) EXPECT_TRUE(file->try_pin(50, admission));
  admission.reset();
  miss(*file, 300);
  std::vector<std::uint64_t> expected{70 * page, 80 * page, 60 * page};
  if (GetParam() == eviction_policy::s3_fifo) expected = {70 * page};  // alone in the small queue
  EXPECT_EQ(disk.write_order, expected);
  EXPECT_EQ(other_disk.writes, 0U);
  ASSERT_TRUE(file->flush());
  ASSERT_TRUE(other->flush());
}

// The same requests, of which some are writes, leave the same pages in memory.
TEST_P(DirtyVictimTest, LeavesWhenItWouldIfItWereClean) {
  test_disk disk(128 * page);
  std::vector<std::vector<bool>> present;
  for (const bool with_writes : {false, true}) {
    cache_.reset();
    make_fixed_cache(pages);
    auto file = open(disk);
    std::mt19937_64 random(7);
    for (std::size_t step = 0; step < 2000; ++step) {
      const std::uint64_t number = 2 * (random() % (random() % 2 == 0 ? 12 : 64));  // nothing is read ahead
      if (random() % 3 == 0 && with_writes) {
        ASSERT_TRUE(file->write(number * page, filled(page, 1)));
      } else {
        miss(*file, number);
      }
      std::vector<bool> now;
      for (std::uint64_t each = 0; each < 128; each += 2) now.push_back(is_there(*file, each));
      if (with_writes) {
        ASSERT_EQ(now, present[step]) << step;
      } else {
        present.push_back(now);
      }
    }
    ASSERT_TRUE(file->flush());
    file.reset();
    cache_.reset();
  }
}

TEST_P(DirtyVictimTest, IsPassedOverAfterItsWriteFailedWhileOthersCanGo) {
  test_disk disk(1000 * page);
  auto file = open_with_dirty_victim(disk);
  disk.fail_writes = true;
  for (std::uint64_t gone = 1; gone < pages; ++gone) {
    miss(*file, 100 + 2 * gone);
    EXPECT_EQ(disk.writes, 1U) << "it is not tried by each miss";
    EXPECT_TRUE(is_there(*file, 0));
    EXPECT_EQ(cache_->stats().evictions, gone);
  }
  disk.fail_writes = false;
  ASSERT_TRUE(file->flush());
}

// What fails is tried again when all has failed, and goes if it succeeds.
TEST_P(DirtyVictimTest, IsTheLastResortAfterItsWriteFailed) {
  test_disk disk(1000 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < 2 * pages; number += 2) {
    ASSERT_TRUE(file->write(number * page, filled(page, 1)));
  }
  disk.fail_writes = true;
  EXPECT_EQ(file->read_ahead(100 * page, bytes{page}).error(), error_from(EIO));
  EXPECT_EQ(disk.writes, pages);
  EXPECT_EQ(file->read_ahead(100 * page, bytes{page}).error(), error_from(EIO));
  EXPECT_EQ(disk.writes, pages + 1);
  disk.fail_writes = false;
  miss(*file, 100);
  EXPECT_EQ(cache_->stats().pages_dirty, pages - 1);
  ASSERT_TRUE(file->flush());
}

TEST_P(DirtyVictimTest, StaysIfItIsHitWhileItIsWritten) {
  watched_disk disk(1000 * page);
  auto file = open_with_dirty_victim(disk);
  pin_admission admission = admit(2);
  disk.on_write = [&] {
    for (int times = 0; times < 2; ++times) EXPECT_TRUE(file->try_pin(0, admission));  // S3-FIFO wants two
  };
  ASSERT_TRUE(file->read_ahead(100 * page, bytes{page}, &admission));
  EXPECT_TRUE(is_there(*file, 0));
  EXPECT_EQ(cache_->stats().evictions, 1U);
}

TEST_P(DirtyVictimTest, StaysIfItIsChangedWhileItIsWritten) {
  watched_disk disk(1000 * page);
  auto file = open_with_dirty_victim(disk);
  pin_admission admission = admit(2);
  int writes = 0;
  disk.on_write = [&] {
    if (++writes > 1) return;
    page_ref changed = file->try_pin(0, admission);
    changed.data()[0] = std::byte{2};
    changed.mark_dirty();
  };
  ASSERT_TRUE(file->read_ahead(100 * page, bytes{page}, &admission));
  EXPECT_EQ(value_at(*file, 0), 2);
  ASSERT_TRUE(file->flush());
}

// The reclaimer's second stage goes by the same order.
TEST_P(DirtyVictimTest, IsWrittenForWhoWantsMemoryBack) {
  cache_.reset();
  budget_ = std::make_unique<memory_budget>("test", memory_budget::options{.limit = 256_KiB});
  cache_ = *page_cache::create(
      "test", {.budget = budget_.get(), .guaranteed_pages = 4, .policy = policy_, .dirty_percent = 100});
  test_disk disk(1000 * page);
  auto file = open(disk);
  for (std::uint64_t number = 0; number < pages; number += 2) ASSERT_TRUE(file->write(number * page, filled(page, 1)));
  EXPECT_EQ(budget_->reclaim(bytes{2 * page}), bytes{2 * page});
  EXPECT_EQ(disk.writes, 2U);
  EXPECT_FALSE(is_there(*file, 0));
  ASSERT_TRUE(file->flush());
}

INSTANTIATE_TEST_SUITE_P(Policies, DirtyVictimTest, ::testing::ValuesIn(eviction_policies), policy_in_name());

}  // namespace
}  // namespace larder::page

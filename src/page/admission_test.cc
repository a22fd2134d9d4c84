// SPDX-License-Identifier: Apache-2.0
#include <chrono>

#include "os/clock.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

using namespace std::chrono_literals;
using AdmissionTest = page_cache_test;

TEST_F(AdmissionTest, GivesBetweenMinimumAndMaximum) {
  make_fixed_cache(8);
  auto six = cache_->admit(1, 6);
  ASSERT_TRUE(six);
  EXPECT_EQ(six->pages(), 6U);
  auto two = cache_->admit(1, 6);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->pages(), 2U);
  two->reduce(1);
  EXPECT_EQ(cache_->stats().pins_admitted, 7U);
  EXPECT_EQ(cache_->admit(2, 2, os::now() + 1ms).error(), error_from(ETIMEDOUT));
  EXPECT_EQ(cache_->admit(9, 9).error(), error_from(ENOMEM));
  EXPECT_EQ(cache_->stats().admission_waits, 1U);
}

TEST_F(AdmissionTest, GrowsWhileTheBudgetHasRoom) {
  make_cache(4, 1_MiB);
  auto admitted = cache_->admit(100, 100);
  ASSERT_TRUE(admitted);
  EXPECT_GE(cache_->stats().pages_owned, 100U);
  EXPECT_LE(budget_->used(), budget_->limit());
}

// KF-55
TEST_F(AdmissionTest, EveryFrameAndItsMetadataIsCharged) {
  make_cache(4, 2_MiB);
  EXPECT_EQ(budget_->used(), page_cache::least_memory({.budget = budget_.get(), .guaranteed_pages = 4}));
  const bytes before = budget_->used();
  auto admitted = cache_->admit(200, 200);
  ASSERT_TRUE(admitted);
  ASSERT_EQ(cache_->stats().pages_owned, 200U);
  // 201 times 64 bytes of metadata, counted from frame 0, take four pages, one of which was there.
  EXPECT_EQ(budget_->used(), before + bytes{page} * (196 + 3));
}

TEST_F(AdmissionTest, LargeOneIsNotOvertakenBySmallOnes) {
  make_fixed_cache(8);
  pin_admission held = admit(5);
  base::atomic<int> order{0};
  int large_came = 0;
  int small_came = 0;
  std::thread large([&] {
    pin_admission all = admit(8);
    large_came = ++order;
  });
  while (cache_->stats().admission_waits < 1) std::this_thread::yield();
  std::thread small([&] {
    pin_admission one = admit(1);
    small_came = ++order;
  });
  while (cache_->stats().admission_waits < 2) std::this_thread::yield();
  EXPECT_EQ(order, 0);
  held.reset();
  large.join();
  small.join();
  EXPECT_EQ(large_came, 1);
  EXPECT_EQ(small_came, 2);
}

TEST_F(AdmissionTest, WaiterGetsMemoryThatOthersRelease) {
  make_cache(4, 512_KiB);
  const bytes rest = budget_->limit() - budget_->used();
  ASSERT_TRUE(budget_->try_charge(rest));
  pin_admission held = admit(4);
  std::thread waiter([&] { EXPECT_EQ(admit(4).pages(), 4U); });
  while (cache_->stats().admission_waits < 1) std::this_thread::yield();
  budget_->release(rest);
  waiter.join();
}

TEST_F(AdmissionTest, OneThatTimesOutLetsTheNextIn) {
  make_fixed_cache(4);
  pin_admission held = admit(2);
  std::thread impatient([&] { EXPECT_EQ(cache_->admit(3, 3, os::now() + 20ms).error(), error_from(ETIMEDOUT)); });
  while (cache_->stats().admission_waits < 1) std::this_thread::yield();
  std::thread next([&] { EXPECT_EQ(admit(2).pages(), 2U); });
  impatient.join();
  next.join();
}

// KF-54: what was evicted is returned page for page, dirty pages too, down to the floor and to what is admitted. KF-57:
// it writes them without waiting for memory, which would be fatal in a reclaimer.
TEST_F(AdmissionTest, ReclaimStopsAtTheFloorAndAtWhatIsAdmitted) {
  make_cache(4, 2_MiB);
  test_disk disk(256 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->read_ahead(0, bytes{128 * page}));
  ASSERT_TRUE(file->write(0, filled(30 * page, 1)));
  pin_admission held = admit(10);
  const bytes before = budget_->used();
  const bytes given = budget_->reclaim(20_MiB);
  EXPECT_EQ(given, before - budget_->used());
  EXPECT_EQ(cache_->stats().pages_owned, 10U);
  held.reset();
  EXPECT_EQ(budget_->reclaim(20_MiB).count, 6 * page);
  EXPECT_EQ(cache_->stats().pages_owned, 4U);
  EXPECT_EQ(cache_->stats().pages_dirty, 0U);
  EXPECT_EQ(disk.contents()[29 * page], std::byte{1});
}

// Pages that nobody used lately go before any page is written; those that are used go last.
TEST_F(AdmissionTest, ReclaimTakesCleanPagesBeforeItWritesDirtyOnes) {
  make_cache(4, 2_MiB);
  test_disk disk(256 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->read_ahead(10 * page, bytes{60 * page}));
  ASSERT_EQ(budget_->reclaim(bytes{page}).count, page);  // the hand has gone around: nothing has been used lately
  ASSERT_TRUE(file->write(0, filled(10 * page, 1)));
  for (std::uint64_t number = 60; number < 80; ++number) value_at(*file, (60 + number % 10) * page);  // twice each
  const std::uint32_t owned = cache_->stats().pages_owned;
  const std::uint64_t writes = disk.writes;
  ASSERT_EQ(budget_->reclaim(bytes{40 * page}).count, 40 * page);
  EXPECT_EQ(disk.writes, writes);
  EXPECT_EQ(cache_->stats().pages_dirty, 10U);
  EXPECT_EQ(cache_->stats().pages_owned, owned - 40);
  const std::uint64_t hits = cache_->stats().hits;
  for (std::uint64_t number = 60; number < 70; ++number) value_at(*file, number * page);
  EXPECT_EQ(cache_->stats().hits, hits + 10) << "what is used stays";
  EXPECT_GT(budget_->reclaim(20_MiB), 0_B);
  EXPECT_EQ(cache_->stats().pages_owned, 4U);
  EXPECT_GT(disk.writes, writes);
  EXPECT_EQ(disk.contents()[9 * page], std::byte{1});
}

// KF-46, KF-56: reclaim gives up on pages that cannot be written, and loses none.
TEST_F(AdmissionTest, ReclaimLeavesPagesThatCannotBeWritten) {
  make_cache(4, 2_MiB);
  test_disk disk(256 * page);
  auto file = open(disk);
  ASSERT_TRUE(file->write(0, filled(16 * page, 1)));
  disk.fail_writes = true;
  const auto dirty_before = cache_->stats().pages_dirty;
  (void)budget_->reclaim(20_MiB);
  EXPECT_EQ(cache_->stats().pages_dirty, dirty_before);
  cache_->audit();
  disk.fail_writes = false;
  ASSERT_TRUE(file->flush());
}

TEST_F(AdmissionTest, MovingOneWithPagesPinnedDies) {
  make_fixed_cache(8);
  test_disk disk(8 * page);
  auto file = open(disk);
  pin_admission admission = admit(1);
  auto pinned = file->pin(0, access::read, admission);
  ASSERT_TRUE(pinned);
  EXPECT_DEATH(pin_admission moved(std::move(admission)), "moved while 1 pages");
  EXPECT_DEATH((void)file->pin(1, access::read, admission), "admitted");
}

}  // namespace
}  // namespace larder::page

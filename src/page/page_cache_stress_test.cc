// SPDX-License-Identifier: Apache-2.0
//
// Many threads in little memory.
#include <algorithm>
#include <array>
#include <random>

#include "os/thread.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

class PageCacheStressTest : public page_cache_test, public ::testing::WithParamInterface<eviction_policy> {
 protected:
  PageCacheStressTest() { policy_ = GetParam(); }

  // Runs `body(number)` on so many threads at once, with small stacks.
  template <typename Body>
  static void on_threads(int count, Body body) {
    std::vector<os::thread> threads;
    base::atomic<bool> all_started{false};
    for (int number = 0; number < count; ++number) {
      auto enter = [&, number] {
        all_started.wait(false);
        body(number);
      };
      auto started = os::thread::start("stress", enter, 256_KiB);
      EXPECT_TRUE(started);
      if (started) threads.push_back(*std::move(started));
    }
    all_started = true;
    all_started.notify_all();
    for (os::thread& each : threads) each.join();
  }
};

// KF-51: every thread holds a page and wants another, in fewer pages than there are threads.
TEST_P(PageCacheStressTest, ThousandThreadsThatHoldAPageAndWantAnotherFinishIn600KiB) {
  make_cache(16, 600_KiB);
  test_disk disk(4096 * page);
  disk.lag_us = 100;  // so that their times overlap
  auto file = open(disk);
  on_threads(1000, [&](int number) {
    std::mt19937_64 random(static_cast<std::uint64_t>(number));
    for (int round = 0; round < 5; ++round) {
      pin_admission admission = admit(2);
      const std::uint64_t low = random() % 2048;
      auto first = file->pin(low, access::read, admission);
      ASSERT_TRUE(first);
      // The first hundred want more than there is: they go on when that has shown.
      while (number < 100 && cache_->stats().admission_waits == 0) std::this_thread::yield();
      auto second = file->pin(2048 + random() % 2048, access::read, admission);
      ASSERT_TRUE(second);
    }
  });
  EXPECT_GT(cache_->stats().admission_waits, 0U);
}

// KF-51, KF-52: with a slow disk, every page dirty and not a byte of memory left, frames come from write-back alone.
TEST_P(PageCacheStressTest, WritersInAFullCacheFinish) {
  make_fixed_cache(16);
  test_disk disk(1024 * page);
  disk.lag_us = 20;
  auto file = open(disk);
  const budget_charge rest(*budget_, budget_->limit() - budget_->used());
  ASSERT_TRUE(budget_->try_charge(rest.amount()));
  on_threads(32, [&](int number) {
    for (std::uint64_t round = 0; round < 16; ++round) {
      pin_admission admission = admit(2);
      const std::uint64_t at = static_cast<std::uint64_t>(number) * 32 + round * 2;
      ASSERT_TRUE(file->write(at * page, filled(2 * page, number), &admission));
    }
  });
  ASSERT_TRUE(file->flush());
  for (std::uint64_t number = 0; number < 32; ++number) {
    EXPECT_EQ(disk.contents()[(number * 32 + 31) * page], std::byte{static_cast<unsigned char>(number)});
  }
}

// A look-up that takes no lock never gives one page for another, while frames change hands under it.
TEST_P(PageCacheStressTest, PinnedPageIsThePageThatWasAskedFor) {
  make_fixed_cache(24);
  constexpr std::uint64_t pages = 64;
  test_disk left(pages * page);
  test_disk right(pages * page);
  const auto mark = [](std::uint64_t which, std::uint64_t number) { return which * 1000 + number + 1; };
  auto left_file = open(left);
  auto right_file = open(right);
  for (std::uint64_t number = 0; number < pages; ++number) {
    for (std::uint64_t which = 0; which < 2; ++which) {
      const std::uint64_t value = mark(which, number);
      auto& file = which == 0 ? *left_file : *right_file;
      ASSERT_TRUE(file.write(number * page + 8, std::as_bytes(std::span(&value, 1))));
    }
  }
  ASSERT_TRUE(left_file->flush());
  ASSERT_TRUE(right_file->flush());
  on_threads(8, [&](int thread) {
    std::mt19937_64 random(static_cast<std::uint64_t>(thread));
    pin_admission admission = admit(3);
    for (int round = 0; round < 20'000; ++round) {
      const std::uint64_t which = random() % 2;
      // Mostly a few pages, so that hits and evictions of the same pages meet.
      const std::uint64_t number = random() % 4 == 0 ? random() % pages : random() % 12;
      auto& file = which == 0 ? *left_file : *right_file;
      std::uint64_t found = 0;
      if (file.try_read(number * page + 8, std::as_writable_bytes(std::span(&found, 1)))) {
        ASSERT_EQ(found, mark(which, number));
      }
      auto pinned = file.pin(number, access::read, admission);
      ASSERT_TRUE(pinned);
      std::memcpy(&found, pinned->data().data() + 8, sizeof found);
      ASSERT_EQ(found, mark(which, number));
    }
  });
  EXPECT_GT(cache_->stats().evictions, 0U);
  EXPECT_GT(cache_->stats().hits, 0U);
}

// Each thread writes, reads and discards pages of its own, while they push each other's out.
TEST_P(PageCacheStressTest, ThreadsReadWhatTheyWrote) {
  make_cache(16, 256_KiB);
  constexpr std::uint64_t own_pages = 16;
  constexpr int threads = 16;
  test_disk disk(own_pages * threads * page);
  auto file = open(disk);
  on_threads(threads, [&](int thread) {
    std::mt19937_64 random(static_cast<std::uint64_t>(thread));
    std::array<int, own_pages> expected{};
    std::vector<std::byte> found(page);
    for (int round = 0; round < 400; ++round) {
      const std::uint64_t mine = random() % own_pages;
      const std::uint64_t offset = (mine * threads + static_cast<std::uint64_t>(thread)) * page;
      switch (random() % 6) {
        case 0:
        case 1: {
          const int value = static_cast<int>(random() % 256);
          ASSERT_TRUE(file->write(offset + 1000, filled(500, value)));
          expected[mine] = value;
          break;
        }
        case 2:
          ASSERT_TRUE(file->discard(offset, bytes{page}));
          expected[mine] = 0;
          break;
        case 3:
          ASSERT_TRUE(file->flush_range(offset, bytes{page}));
          break;
        default:
          ASSERT_TRUE(file->read(offset, found));
          ASSERT_EQ(found[1200], std::byte{static_cast<unsigned char>(expected[mine])});
          ASSERT_EQ(found[0], std::byte{0});
      }
    }
  });
  ASSERT_TRUE(file->flush());
}

TEST_P(PageCacheStressTest, WhatWasDiscardedIsNotReadAgainWhileOthersLoad) {
  make_fixed_cache(32);
  constexpr std::uint64_t pages = 256;
  test_disk disk(pages * page);
  disk.fill(std::byte{9});
  disk.lag_us = 30;
  auto file = open(disk);
  base::atomic<bool> ended{false};
  on_threads(4, [&](int thread) {
    std::mt19937_64 random(static_cast<std::uint64_t>(thread));
    if (thread != 0) {
      while (!ended) {
        const std::uint64_t first = random() % (pages - 8);
        ASSERT_TRUE(file->read_ahead(first * page, bytes{8 * page}));
      }
      return;
    }
    std::vector<std::byte> found(4 * page);
    for (std::uint64_t at = 0; at < pages; at += 4) {
      EXPECT_TRUE(file->discard(at * page, bytes{4 * page}));
      EXPECT_TRUE(file->read(at * page, found));
      EXPECT_TRUE(std::all_of(found.begin(), found.end(), [](std::byte each) { return each == std::byte{0}; }));
    }
    ended = true;
  });
  ASSERT_TRUE(file->flush());
}

TEST_P(PageCacheStressTest, ConcurrentFlushesShareTheWork) {
  make_fixed_cache(64);
  test_disk disk(64 * page);
  disk.lag_us = 100;
  auto file = open(disk);
  on_threads(8, [&](int thread) {
    for (int round = 0; round < 20; ++round) {
      const std::uint64_t offset = static_cast<std::uint64_t>(thread) * 8 * page;
      if (thread == 0) {
        ASSERT_TRUE(file->write(offset, filled(page, round)));
      }
      ASSERT_TRUE(file->flush());
      if (thread == 0) {
        ASSERT_EQ(disk.contents()[offset], std::byte{static_cast<unsigned char>(round)});
      }
    }
  });
  EXPECT_LE(disk.flushes, 8U * 20U);
}

// Another user of the budget takes most of it, again and again, while the cache is at work (KF-47, KF-53, KF-54).
TEST_P(PageCacheStressTest, OthersGetTheirMemoryWhileTheCacheWorks) {
  make_cache(8, 512_KiB);
  test_disk disk(512 * page);
  auto file = open(disk);
  base::atomic<int> at_work{5};
  on_threads(6, [&](int thread) {
    std::mt19937_64 random(static_cast<std::uint64_t>(thread));
    if (thread == 0) {
      while (at_work > 0) {
        ASSERT_TRUE(budget_->charge(256_KiB));
        budget_->release(256_KiB);
      }
      return;
    }
    for (int round = 0; round < 1000; ++round) {
      const std::uint64_t offset = (random() % 100 * 5 + static_cast<std::uint64_t>(thread) - 1) * page;
      ASSERT_TRUE(file->write(offset, filled(page, round)));
    }
    --at_work;
  });
  ASSERT_TRUE(budget_->charge(400_KiB));  // more than is left beside what the cache has grown to in any case
  budget_->release(400_KiB);
  EXPECT_GT(cache_->stats().pages_reclaimed, 0U);
  ASSERT_TRUE(file->flush());
}

// Who looks after the budget is not who works in the cache, and cannot be told to rest: the audit keeps it out.
TEST_P(PageCacheStressTest, AuditHoldsWhileTheBudgetIsReclaimed) {
  make_cache(8, 1_MiB);
  test_disk disk(100 * page);
  auto file = open(disk);
  base::atomic<bool> audited{false};
  on_threads(2, [&](int thread) {
    if (thread == 0) {
      while (!audited) budget_->reclaim(bytes{page});
      return;
    }
    for (int round = 0; round < 300 || cache_->stats().pages_reclaimed < 100; ++round) {
      EXPECT_TRUE(file->write(static_cast<std::uint64_t>(round) * 7 % 90 * page, filled(10 * page, round)));
      cache_->audit();
    }
    audited = true;
  });
  ASSERT_TRUE(file->flush());
}

INSTANTIATE_TEST_SUITE_P(Policies, PageCacheStressTest, ::testing::ValuesIn(eviction_policies), policy_in_name());

}  // namespace
}  // namespace larder::page

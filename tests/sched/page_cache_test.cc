// SPDX-License-Identifier: Apache-2.0
//
// A page that is read without a pin, while its frame gets another page.
#include <cstring>
#include <memory>

#include <gtest/gtest.h>

#include <larder/page_cache.h>

#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using base::mutant;

// Each byte of page n is n + 1.
class numbered_disk final : public backing {
 public:
  bytes size() const override { return bytes{4 * page_size}; }
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override {
    for (const iovec& each : into) {
      std::memset(each.iov_base, static_cast<int>(offset / page_size) + 1, each.iov_len);
      offset += each.iov_len;
    }
    return {};
  }
  result<void> write(std::span<const iovec>, std::uint64_t) override { return {}; }
  result<void> discard(std::uint64_t, bytes) override { return {}; }
  result<void> zero(std::uint64_t, bytes) override { return {}; }
  result<void> flush() override { return {}; }
};

// One frame: who reads another page takes it from the first.
class read_beside_eviction : public scenario {
 public:
  read_beside_eviction() {
    require(read(0), "page 0 cannot be read");
    thread("reads without a pin", [this] {
      for (int times = 0; times < 2; ++times) {
        std::byte found{};
        if (file_->try_read(100, std::span(&found, 1))) require(found == std::byte{1}, "another page was read");
      }
    });
    thread("reads others", [this] {
      require(read(2), "page 2 cannot be read");
      require(read(0), "page 0 cannot be read again");
    });
  }
  void audit() override {
    cache_->audit();
    std::byte found{};
    require(file_->try_read(100, std::span(&found, 1)) && found == std::byte{1}, "page 0 is not in memory");
  }

 private:
  bool read(std::uint64_t number) {
    std::byte found{};
    return file_->read(number * page_size, std::span(&found, 1)) && found == static_cast<std::byte>(number + 1);
  }

  memory_budget budget_{"budget", {.limit = 1_MiB}};
  numbered_disk disk_;
  std::unique_ptr<page_cache> cache_ =
      *page_cache::create("cache", {.budget = &budget_, .guaranteed_pages = 1, .limit = bytes{page_size}});
  std::unique_ptr<cached_file> file_ = *cache_->open(disk_);
};

TEST(PageCacheSchedTest, WhatIsReadWithoutAPinIsThePage) {
  EXPECT_TRUE(no_schedule_fails<read_beside_eviction>({.preemptions = 2}));
}

TEST(PageCacheSchedTest, ReadThatIsNotValidatedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<read_beside_eviction>(mutant::read_not_validated));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/page_cache.h>

#include "base/atomic.h"
#include "os/file.h"

namespace larder::page {

// A disk in memory that fails or lags on demand, and says what was asked of it.
class test_disk : public backing {
 public:
  explicit test_disk(std::uint64_t size, bool discards = true)
      : memory_(*memory_backing::create(bytes{size})), discards_(discards) {}

  bytes size() const override { return memory_->size(); }
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override {
    ++reads;
    lag();
    if (fail_reads || (offset <= fail_read_at && fail_read_at < offset + os::length_of(into))) return error_from(EIO);
    return memory_->read(into, offset);
  }
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override {
    ++writes;
    lag();
    {
      const std::scoped_lock locked(order_guard_);
      write_order.push_back(offset);
    }
    if (fail_writes || (offset <= fail_write_at && fail_write_at < offset + os::length_of(from)))
      return error_from(EIO);
    return memory_->write(from, offset);
  }
  result<void> discard(std::uint64_t offset, bytes length) override {
    if (!discards_) return error_from(EOPNOTSUPP);
    lag();
    return memory_->discard(offset, length);
  }
  result<void> zero(std::uint64_t offset, bytes length) override {
    if (!discards_) return error_from(EOPNOTSUPP);
    lag();
    return memory_->zero(offset, length);
  }
  result<void> flush() override {
    ++flushes;
    if (fail_flushes) return error_from(EIO);
    return {};
  }

  // What is on the disk itself.
  std::vector<std::byte> contents() {
    std::vector<std::byte> all(size().count);
    const iovec vector{all.data(), all.size()};
    EXPECT_TRUE(memory_->read(std::span(&vector, 1), 0));
    return all;
  }
  void fill(std::byte value) {
    std::vector<std::byte> all(size().count, value);
    const iovec vector{all.data(), all.size()};
    EXPECT_TRUE(memory_->write(std::span(&vector, 1), 0));
  }

  static constexpr std::uint64_t nowhere = ~std::uint64_t{0};
  base::atomic<bool> fail_reads{false};
  base::atomic<bool> fail_writes{false};
  base::atomic<bool> fail_flushes{false};
  base::atomic<std::uint64_t> fail_read_at{nowhere};
  base::atomic<std::uint64_t> fail_write_at{nowhere};
  base::atomic<int> lag_us{0};
  base::atomic<std::uint64_t> reads{0};
  base::atomic<std::uint64_t> writes{0};
  base::atomic<std::uint64_t> flushes{0};
  std::vector<std::uint64_t> write_order;  // where writes began; read when nobody writes

 private:
  void lag() const {
    if (lag_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(lag_us));
  }

  const std::unique_ptr<memory_backing> memory_;
  const bool discards_;
  std::mutex order_guard_;
};

// A budget with a cache in it; the budget is empty again when the test ends.
class page_cache_test : public ::testing::Test {
 protected:
  static constexpr std::uint64_t page = page_size;

  page_cache& make_cache(std::uint32_t guaranteed_pages, bytes limit) {
    budget_ = std::make_unique<memory_budget>("test", memory_budget::options{.limit = limit});
    auto made = page_cache::create(
        "test",
        {.budget = budget_.get(), .guaranteed_pages = guaranteed_pages, .policy = policy_, .page_size = page_size_});
    EXPECT_TRUE(made) << made.error().message();
    cache_ = *std::move(made);
    return *cache_;
  }
  // A cache of exactly so many pages.
  page_cache& make_fixed_cache(std::uint32_t pages) {
    page_cache::options chosen{.guaranteed_pages = pages,
                               .limit = page_size_ * pages,
                               .policy = policy_,
                               .page_size = page_size_,
                               .dirty_percent = dirty_percent_};
    const bytes least = page_cache::least_memory(chosen);
    budget_ = std::make_unique<memory_budget>("test", memory_budget::options{.limit = least + bytes{4096}});
    chosen.budget = budget_.get();
    auto made = page_cache::create("test", chosen);
    EXPECT_TRUE(made) << made.error().message();
    cache_ = *std::move(made);
    return *cache_;
  }
  std::unique_ptr<cached_file> open(backing& source) {
    auto opened = cache_->open(source);
    EXPECT_TRUE(opened);
    return *std::move(opened);
  }
  pin_admission admit(std::uint32_t pages) {
    auto admitted = cache_->admit(pages, pages);
    EXPECT_TRUE(admitted);
    return *std::move(admitted);
  }
  void TearDown() override {
    if (cache_ != nullptr) cache_->audit();
    cache_.reset();
    if (budget_ == nullptr) return;
    EXPECT_EQ(budget_->used().count, 0U);
    EXPECT_LE(budget_->peak(), budget_->limit());
  }

  // Of the caches made from now on.
  eviction_policy policy_ = default_eviction_policy;
  bytes page_size_{page};
  std::uint32_t dirty_percent_ = 50;
  std::unique_ptr<memory_budget> budget_;
  std::unique_ptr<page_cache> cache_;
};

// Names of tests that have a policy as their parameter.
inline std::string policy_word(eviction_policy policy) {
  std::string word(name_of(policy));
  std::erase(word, '-');
  return word;
}
inline auto policy_in_name() {
  return [](const ::testing::TestParamInfo<eviction_policy>& info) { return policy_word(info.param); };
}

inline std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}
inline int value_at(cached_file& file, std::uint64_t offset) {
  std::byte one{};
  EXPECT_TRUE(file.read(offset, std::span(&one, 1)));
  return static_cast<int>(one);
}

}  // namespace larder::page

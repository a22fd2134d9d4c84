// SPDX-License-Identifier: Apache-2.0
//
// Random operations on a tiny cache against an array of bytes, with a disk that fails now and then. After each step the
// cache's laws are checked; after each flush that succeeds the disk holds what the model holds.
#include <algorithm>
#include <random>
#include <tuple>

#include "page/page_test.h"

namespace larder::page {
namespace {

class PageCacheModelTest
    : public page_cache_test,
      public ::testing::WithParamInterface<std::tuple<eviction_policy, std::uint64_t, std::uint64_t>> {
 protected:
  PageCacheModelTest() {
    policy_ = std::get<0>(GetParam());
    page_size_ = bytes{std::get<1>(GetParam())};
  }
  static std::uint64_t seed() { return std::get<2>(GetParam()); }

  std::uint64_t below(std::uint64_t end) { return std::uniform_int_distribution<std::uint64_t>(0, end - 1)(random_); }

  struct range {
    std::uint64_t offset;
    std::uint64_t length;
  };
  range any_range() {
    const std::uint64_t offset = below(file_size_);
    const std::uint64_t longest = below(4) == 0 ? file_size_ : 3 * page_size_.count;
    return {offset, 1 + below(std::min(longest, file_size_ - offset))};
  }

  // An operation that failed has changed each byte of its range or not; the model learns which.
  void learn(range where, std::span<const std::byte> wanted) {
    calm();
    std::vector<std::byte> now(where.length);
    ASSERT_TRUE(file_->read(where.offset, now));
    std::uint64_t neither = 0;
    for (std::uint64_t i = 0; i < where.length; ++i) {
      std::byte& known = model_[where.offset + i];
      if (now[i] != known && now[i] != wanted[i]) ++neither;
      known = now[i];
    }
    ASSERT_EQ(neither, 0U) << "bytes of the range at " << where.offset << " are neither old nor new";
  }
  void applied(const result<void>& outcome, range where, std::span<const std::byte> wanted) {
    if (outcome) {
      std::copy(wanted.begin(), wanted.end(), model_.begin() + static_cast<std::ptrdiff_t>(where.offset));
    } else {
      learn(where, wanted);
    }
  }

  void write() {
    const range where = any_range();
    const auto bytes_written = filled(where.length, static_cast<int>(below(256)));
    applied(file_->write(where.offset, bytes_written), where, bytes_written);
  }
  void write_pinned() {
    const std::uint64_t number = below(41);
    pin_admission admission = admit(1);
    auto pinned = file_->pin(number, below(2) == 0 ? access::overwrite : access::modify, admission);
    if (!pinned) return;
    const std::size_t first = below(pinned->data().size());
    const std::size_t last = first + below(pinned->data().size() - first + 1);
    const std::byte value{static_cast<unsigned char>(below(256))};
    std::fill(pinned->data().begin() + static_cast<std::ptrdiff_t>(first),
              pinned->data().begin() + static_cast<std::ptrdiff_t>(last), value);
    if (!pinned->written(first, last)) return;
    const auto at = model_.begin() + static_cast<std::ptrdiff_t>(number * page_size_.count);
    std::fill(at + static_cast<std::ptrdiff_t>(first), at + static_cast<std::ptrdiff_t>(last), value);
  }
  void read() {
    const range where = any_range();
    std::vector<std::byte> found(where.length);
    if (!file_->read(where.offset, found)) return;
    ASSERT_TRUE(std::equal(found.begin(), found.end(), model_.begin() + static_cast<std::ptrdiff_t>(where.offset)));
  }
  void discard() {
    const range where = any_range();
    const auto outcome = below(2) == 0 ? file_->discard(where.offset, bytes{where.length})
                                       : file_->zero(where.offset, bytes{where.length}, below(2) == 0);
    applied(outcome, where, filled(where.length, 0));
  }
  void flush() {
    if (file_->flush()) {
      ASSERT_TRUE(disk_.contents() == model_);
    }
  }
  void flush_range() {
    const range where = any_range();
    if (!file_->flush_range(where.offset, bytes{where.length})) return;
    const auto on_disk = disk_.contents();
    const auto at = static_cast<std::ptrdiff_t>(where.offset);
    ASSERT_TRUE(std::equal(on_disk.begin() + at, on_disk.begin() + at + static_cast<std::ptrdiff_t>(where.length),
                           model_.begin() + at));
  }
  void calm() {
    disk_.fail_reads = disk_.fail_writes = false;
    disk_.fail_write_at = test_disk::nowhere;
  }
  void disturb() {
    disk_.fail_reads = below(8) == 0;
    disk_.fail_writes = below(8) == 0;
    disk_.fail_write_at = below(4) == 0 ? below(file_size_) : test_disk::nowhere;
  }

  void step() {
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        write();
        break;
      case 3:
      case 4:
        write_pinned();
        break;
      case 5:
      case 6:
        read();
        break;
      case 7:
        discard();
        break;
      case 8:
        flush();
        break;
      case 9:
        flush_range();
        break;
      case 10:
        disturb();
        break;
      default: {
        const range where = any_range();
        (void)file_->read_ahead(where.offset, bytes{where.length});
      }
    }
  }

  void run(int steps) {
    file_ = open(disk_);
    const int steps_now = page_size_ == bytes{page} ? steps : steps / 4;  // each moves more bytes
    for (int i = 0; i < steps_now && !HasFatalFailure(); ++i) {
      step();
      cache_->audit();
      budget_->audit();
    }
    calm();
    EXPECT_TRUE(file_->flush());
    EXPECT_TRUE(disk_.contents() == model_);
    file_.reset();
  }

  const std::uint64_t file_size_ = 40 * std::get<1>(GetParam()) + 777;
  std::mt19937_64 random_{seed()};
  test_disk disk_{file_size_, seed() % 3 != 0};
  std::vector<std::byte> model_ = filled(file_size_, 0);
  std::unique_ptr<cached_file> file_;
};

TEST_P(PageCacheModelTest, EightPagesHoldWhatAnArrayHolds) {
  make_fixed_cache(8);
  run(600);
}

TEST_P(PageCacheModelTest, OnePageHoldsWhatAnArrayHolds) {
  make_fixed_cache(1);
  run(300);
}

TEST_P(PageCacheModelTest, CacheThatGrowsHoldsWhatAnArrayHolds) {
  const page_cache::options chosen{
      .guaranteed_pages = 4, .limit = page_size_ * 50, .policy = policy_, .page_size = page_size_};
  make_cache(4, page_size_ * 6 + page_cache::least_memory(chosen));
  run(600);
}

std::string name_of_run(eviction_policy policy, std::uint64_t page_size, std::uint64_t seed) {
  return policy_word(policy) + "_" + std::to_string(page_size >> 10) + "KiB_" + std::to_string(seed);
}
const auto run_in_name = [](const auto& run) { return std::apply(name_of_run, run.param); };

INSTANTIATE_TEST_SUITE_P(SmallPages, PageCacheModelTest,
                         ::testing::Combine(::testing::ValuesIn(eviction_policies),
                                            ::testing::Values(std::uint64_t{4096}),
                                            ::testing::Range(std::uint64_t{1}, std::uint64_t{7})),
                         run_in_name);
INSTANTIATE_TEST_SUITE_P(LargePages, PageCacheModelTest,
                         ::testing::Combine(::testing::ValuesIn(eviction_policies),
                                            ::testing::Values(std::uint64_t{16} << 10, std::uint64_t{64} << 10),
                                            ::testing::Range(std::uint64_t{1}, std::uint64_t{3})),
                         run_in_name);

}  // namespace
}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
//
// KF-48: every system call under the page cache fails at its n-th use, for n = 1, 2, 3 … until a run needs none more.
// What the caller was told holds, nothing written is lost, and the budget comes back to nothing.
#include <algorithm>
#include <tuple>
#include <utility>

#include "os/fault.h"
#include "os/file.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

class PageFaultTest : public page_cache_test,
                      public ::testing::WithParamInterface<std::tuple<eviction_policy, os::call>> {
 protected:
  // Ends early where a call that fails leaves nothing to go on with.
  void scenario() {
    auto file = os::open_nameless_file("/dev/shm", bytes{64 * page});
    if (!file) return;
    auto disk = file_backing::adopt(file->release(), false);
    if (!disk) return;
    auto made = page_cache::create(
        "test",
        {.budget = budget_.get(), .guaranteed_pages = 4, .limit = bytes{16 * page}, .policy = std::get<0>(GetParam())});
    if (!made) return;
    cache_ = *std::move(made);
    auto opened = cache_->open(**disk);
    if (!opened) return;
    cached_file& under_test = **opened;
    std::vector<std::byte> expected = filled(64 * page, 0);
    for (std::uint64_t number = 0; number < 64; number += 3) {
      const auto value = filled(3000, static_cast<int>(number + 1));
      const std::uint64_t offset = number * page + 500;
      const bool done = static_cast<bool>(under_test.write(offset, value));
      if (done) std::copy(value.begin(), value.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
      cache_->audit();
    }
    (void)budget_->reclaim(32_KiB);
    const bool discarded = static_cast<bool>(under_test.discard(30 * page, bytes{6 * page}));
    (void)under_test.flush();
    os::fault::disarm();
    cache_->audit();
    ASSERT_TRUE(under_test.flush()) << "what failed is tried again";
    std::vector<std::byte> found(64 * page);
    ASSERT_TRUE(under_test.read(0, found));
    for (std::uint64_t number = 0; number < 64; ++number) {
      const auto at = static_cast<std::ptrdiff_t>(number * page);
      const std::vector<std::byte> one(found.begin() + at, found.begin() + at + static_cast<std::ptrdiff_t>(page));
      const bool in_discard = 30 <= number && number < 36;
      const bool written = std::equal(one.begin(), one.end(), expected.begin() + at);
      if (in_discard) {
        ASSERT_TRUE(one == filled(page, 0) || (written && !discarded)) << "page " << number;
      } else {
        ASSERT_TRUE(written) << "page " << number;
      }
    }
  }
};

TEST_P(PageFaultTest, NothingIsLostWhenACallFails) {
  const os::call call = std::get<1>(GetParam());
  std::uint64_t nth = 1;
  for (bool fired = true; fired && !HasFatalFailure(); ++nth) {
    budget_ = std::make_unique<memory_budget>("test", memory_budget::options{.limit = 256_KiB});
    os::fault::arm(call, nth, call == os::call::map || call == os::call::advise ? ENOMEM : EIO);
    scenario();
    os::fault::disarm();
    fired = os::fault::fired();
    if (cache_ != nullptr) cache_->audit();
    cache_.reset();
    ASSERT_EQ(budget_->used().count, 0U);
  }
  EXPECT_GT(nth, 1U);
}

INSTANTIATE_TEST_SUITE_P(Calls, PageFaultTest,
                         ::testing::Combine(::testing::Values(eviction_policy::sieve, eviction_policy::s3_fifo),
                                            ::testing::Values(os::call::map, os::call::advise, os::call::open,
                                                              os::call::stat, os::call::read, os::call::write,
                                                              os::call::sync, os::call::allocate)));

TEST(FileBackingTest, RefusesWhatIsNoDisk) {
  EXPECT_EQ(file_backing::open("/nowhere/at/all", true).error(), error_from(ENOENT));
  EXPECT_EQ(file_backing::open("/tmp", true).error(), error_from(EISDIR));
  EXPECT_EQ(file_backing::open("/dev/null", true).error(), error_from(EINVAL));
}

TEST(FileBackingTest, ReadOnlyIsNotWritten) {
  auto file = os::open_nameless_file("/dev/shm", bytes{8192});
  ASSERT_TRUE(file);
  auto disk = file_backing::adopt(file->release(), true);
  ASSERT_TRUE(disk);
  char byte = 1;
  const iovec vector{&byte, 1};
  EXPECT_EQ((*disk)->write(std::span(&vector, 1), 0).error(), error_from(EROFS));
  EXPECT_EQ((*disk)->discard(0, bytes{1}).error(), error_from(EROFS));
  EXPECT_EQ((*disk)->zero(0, bytes{1}).error(), error_from(EROFS));
  EXPECT_TRUE((*disk)->read(std::span(&vector, 1), 8191));
  EXPECT_EQ(byte, 0);
}

TEST(MemoryBackingTest, IsCharged) {
  memory_budget budget("test", {.limit = 64_KiB});
  EXPECT_EQ(memory_backing::create(65_KiB, &budget).error(), error_from(ENOMEM));
  {
    auto disk = memory_backing::create(60_KiB, &budget);
    ASSERT_TRUE(disk);
    EXPECT_EQ(budget.used(), 60_KiB);
  }
  EXPECT_EQ(budget.used().count, 0U);
}

}  // namespace
}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
//
// KF-48: every system call under a cache fails at its n-th use, for n = 1, 2, 3 … until a life of the cache needs none
// more. Whatever fails, the cache's laws hold, what is built is destroyed once, and the budget comes back to nothing.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/keeper.h>
#include <larder/raw_cache.h>

#include "cache/keeper.h"
#include "cache/object_census_test.h"
#include "os/fault.h"

namespace larder {
namespace {

constexpr std::size_t reservation = 20;
constexpr std::size_t risen_reservation = 60;

class RawCacheFaultTest : public testing::TestWithParam<os::call> {
 protected:
  void SetUp() override {
    // Only rounds that a test asks for; and the way of the arrays is decided, once for the process, before calls fail.
    ASSERT_TRUE(configure_keeper({.period = std::chrono::hours(1)}));
    const raw_cache first("first", {.size = 64});
  }
  void TearDown() override {
    os::fault::disarm();
    (void)configure_keeper({});
  }

  // A life in which arrays, batches and slabs are made, grow and go. Ends early where there is no cache.
  void live(std::size_t size) {
    result<std::unique_ptr<raw_cache>> made = create(size);
    if (!made) {
      EXPECT_EQ(made.error(), error_from(ENOMEM));
      return;
    }
    cache_ = *std::move(made);
    expect_reservation(reservation);
    const std::size_t many = many_of(size);
    for (int round = 0; round < 2; ++round) {
      fill(many);
      drain_one_by_one();
      fill_many(many / 2);
      drain_many();
    }
    (void)cache_->trim(30_KiB);
    fill(many / 10);
    ASSERT_TRUE(cache_->set_reservation(risen_reservation));
    drain_one_by_one();
    cache::keeper::of_process().round();
    fill_many(many / 2);
    drain_many();
    (void)budget_.reclaim(10_KiB);
    cache::keeper::of_process().round();
    cache::keeper::of_process().round();
    cache_->audit();
  }

  // Some twenty slabs.
  static std::size_t many_of(std::size_t size) { return size < 1000 ? 1200 : 150; }

  result<std::unique_ptr<raw_cache>> create(std::size_t size) {
    raw_cache::options chosen = census_.options_for(size, budget_);
    chosen.reservation = reservation;
    return raw_cache::create("faults", chosen);
  }

  void expect_reservation(std::size_t count) {
    fill(count);
    EXPECT_EQ(out_.size(), count) << "KF-10: the reservation needs no system call";
    drain_one_by_one();
  }
  void fill(std::size_t count) {
    while (out_.size() < count) {
      void* object = cache_->try_get();
      if (object == nullptr) break;
      census_.check_contents(object);
      out_.push_back(object);
    }
    ASSERT_GE(out_.size(), std::min(count, reservation));
  }
  void fill_many(std::size_t count) {
    out_.resize(count);
    out_.resize(cache_->get_many(out_.data(), count));
    ASSERT_GE(out_.size(), std::min(count, reservation));
    for (void* object : out_) census_.check_contents(object);
  }
  void drain_one_by_one() {
    for (void* object : out_) cache_->put(object);
    out_.clear();
  }
  void drain_many() {
    cache_->put_many(out_.data(), out_.size());
    out_.clear();
  }

  // With nothing failing any more: the cache serves as ever, then ends, and leaves nothing.
  void recover_and_end(std::size_t size) {
    if (cache_ != nullptr) {
      const raw_cache::statistics now = cache_->stats();
      EXPECT_EQ(now.objects_out, 0U);
      EXPECT_EQ(now.objects_built, census_.built());
      EXPECT_EQ(now.charged, budget_.used());
      fill(many_of(size));
      EXPECT_EQ(out_.size(), many_of(size));
      drain_one_by_one();
      cache::keeper::of_process().round();
      EXPECT_GE(cache_->stats().objects_built, risen_reservation) << "the round builds what could not be built";
      cache_->audit();
    }
    cache_.reset();
    EXPECT_EQ(census_.built(), 0U);
    EXPECT_EQ(census_.constructions(), census_.destructions());
    ASSERT_EQ(budget_.used(), bytes{});
    budget_.audit();
  }

  // How many uses there were until a life needed none more.
  std::uint64_t fail_each_use(std::size_t size, bool from_then_on) {
    std::uint64_t nth = 0;
    for (bool fired = true; fired && !HasFatalFailure() && !HasNonfatalFailure();) {
      SCOPED_TRACE(testing::Message() << "size " << size << ", use " << nth + 1);
      os::fault::arm(GetParam(), ++nth, ENOMEM, from_then_on);
      live(size);
      os::fault::disarm();
      fired = os::fault::fired();
      recover_and_end(size);
    }
    return nth - 1;
  }

  memory_budget budget_{"test"};
  object_census census_;
  std::unique_ptr<raw_cache> cache_;
  std::vector<void*> out_;
};

TEST_P(RawCacheFaultTest, NothingIsLostWhenOneCallFails) {
  for (const std::size_t size : {64U, 3000U}) {
    const std::uint64_t uses = fail_each_use(size, false);
    const bool surely_used = GetParam() == os::call::map || GetParam() == os::call::any;
    EXPECT_GE(uses, surely_used ? 10U : 0U);
  }
}

// As where the system has come to the end of something. A fence that never succeeds ends the process, by design.
TEST_P(RawCacheFaultTest, NothingIsLostWhenACallFailsFromThenOn) {
  if (GetParam() == os::call::membarrier || GetParam() == os::call::any) GTEST_SKIP();
  for (const std::size_t size : {64U, 3000U}) fail_each_use(size, true);
}

INSTANTIATE_TEST_SUITE_P(Calls, RawCacheFaultTest,
                         testing::Values(os::call::map, os::call::membarrier, os::call::advise, os::call::thread_create,
                                         os::call::any));

// In a forked child, where no keeper runs yet.
[[noreturn]] void use_a_cache_without_room_for_a_thread() {
  (void)configure_keeper({.period = std::chrono::milliseconds(1)});
  os::fault::arm(os::call::thread_create, 1, EAGAIN);
  memory_budget budget("test");
  object_census census;
  raw_cache cache("unkept", census.options_for(64, budget));
  cache.put(cache.try_get());
  if (!os::fault::fired()) std::_Exit(2);
  // Once more below the arrays, which is where the keeper is called.
  std::vector<void*> objects(1000);
  objects.resize(cache.get_many(objects.data(), objects.size()));
  cache.put_many(objects.data(), objects.size());
  for (int waits = 0; cache.stats().objects_built > 0; ++waits) {
    if (waits == 5000) std::_Exit(3);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::_Exit(0);
}

TEST(RawCacheFaultDeathTest, AKeeperThatCouldNotStartIsStartedByALaterCall) {
  GTEST_FLAG_SET(death_test_style, "fast");  // by fork()
  EXPECT_EXIT(use_a_cache_without_room_for_a_thread(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// Every system call of a cache's life fails at its n-th use, for each n until a life passes without a failure (KF-48).
// Whatever fails, the laws hold, what was got can be put, and all memory goes back.
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include <larder/keeper.h>
#include <larder/raw_cache.h>

#include "cache/keeper.h"
#include "cache/object_census_test.h"
#include "os/cpu_sequence.h"
#include "os/fault.h"

namespace larder {
namespace {

class ObjectCacheFaultTest : public testing::TestWithParam<os::call> {
 protected:
  // Only rounds that the test asks for.
  void SetUp() override { ASSERT_TRUE(configure_keeper({.period = std::chrono::hours(1)})); }
  void TearDown() override {
    os::fault::disarm();
    ASSERT_TRUE(configure_keeper({}));
  }

  // From the creation to the end, through arrays that grow, the depot, trims and the keeper.
  static void live(memory_budget& budget, object_census& census) {
    raw_cache::options chosen = census.options_for(64, budget);
    chosen.reservation = 2;
    const auto made = raw_cache::create("faults", chosen);
    if (!made) {
      EXPECT_EQ(made.error().value(), ENOMEM);
      return;
    }
    raw_cache& cache = **made;
    std::vector<void*> out;
    for (int round = 0; round < 8; ++round) {
      for (int i = 0; i < 700; ++i) {
        void* object = cache.try_get();
        if (object == nullptr) continue;
        census.check_contents(object);
        out.push_back(object);
      }
      EXPECT_GE(out.size(), 2U) << "the reservation was not served";
      EXPECT_EQ(std::set<void*>(out.begin(), out.end()).size(), out.size());
      EXPECT_EQ(cache.stats().objects_out, out.size());
      for (void* object : out) cache.put(object);
      out.clear();
      if (round == 4) cache.trim();
      if (round > 5) cache::keeper::of_process().round();
      cache.audit();
      EXPECT_EQ(cache.stats().charged, budget.used());
    }
    EXPECT_EQ(cache.stats().objects_out, 0U);
  }
};

TEST_P(ObjectCacheFaultTest, EachFailureIsSurvivedAndLeaksNothing) {
  if (GetParam() == os::call::membarrier && os::sequences() == os::sequence_mode::sharded) {
    GTEST_SKIP() << "nothing is fenced: " << os::sequences_description();
  }
  std::uint64_t lives = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(testing::Message() << "use number " << nth);
    memory_budget budget("faults");
    object_census census;
    os::fault::arm(GetParam(), nth, GetParam() == os::call::thread_create ? EAGAIN : ENOMEM);
    live(budget, census);
    const bool fired = os::fault::fired();
    os::fault::disarm();
    EXPECT_EQ(census.built(), 0U);
    EXPECT_EQ(census.constructions(), census.destructions());
    EXPECT_EQ(budget.used(), bytes{});
    if (!fired || HasFailure()) break;
    ++lives;
  }
  // The keeper's thread is started once a process, perhaps by another test.
  if (GetParam() != os::call::thread_create) {
    EXPECT_GT(lives, 3U) << "hardly a call could fail";
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, ObjectCacheFaultTest,
                         testing::Values(os::call::map, os::call::advise, os::call::membarrier, os::call::thread_create,
                                         os::call::any));

}  // namespace
}  // namespace larder

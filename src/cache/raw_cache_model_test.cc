// SPDX-License-Identifier: Apache-2.0
//
// Seeded random sequences of the operations of cache_model_test.h, which has the laws, over slabs of 1, 2 and many
// objects, with and without reservation, limit, a small budget and failing constructors.
#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "cache/cache_model_test.h"

namespace larder::cache {
namespace {

constexpr std::size_t steps_per_run = 300;

void run(std::size_t size, std::size_t alignment, std::size_t reservation, std::size_t limit, bytes budget_limit,
         std::uint64_t seed, debug_checks checks = debug_checks::none, std::size_t steps = steps_per_run,
         bool scratch = false) {
  SCOPED_TRACE(testing::Message() << "reservation " << reservation << ", seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> operations(steps * operation::length);
  for (std::uint8_t& each : operations) each = static_cast<std::uint8_t>(random());
  cache_model model({.size = size,
                     .alignment = alignment,
                     .reservation = reservation,
                     .limit = limit,
                     .memory = budget_limit,
                     .checks = checks,
                     .scratch = scratch});
  EXPECT_EQ(model.play(operations), "");
}

class RawCacheModelTest : public testing::TestWithParam<std::size_t> {};

TEST_P(RawCacheModelTest, LawsHoldAfterEachStepWithoutLimits) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 0, raw_cache::no_limit, unlimited, seed);
}

TEST_P(RawCacheModelTest, LawsHoldAfterEachStepWithReservationAndLimit) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 5, 40, unlimited, seed);
}

TEST_P(RawCacheModelTest, ReservationThatIsTheLimitIsServedWhole) {
  for (const std::size_t both : {1U, 3U, 100U}) run(GetParam(), 8, both, both, unlimited, both);
}

TEST_P(RawCacheModelTest, LawsHoldInABudgetThatIsOftenFull) {
  const bytes room = round_up_to_pages(bytes{GetParam() * 20}) + 64_KiB;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 2, raw_cache::no_limit, room, seed);
}

TEST_P(RawCacheModelTest, EveryAlignmentUpToAPageHolds) {
  for (std::size_t alignment = 1; alignment <= page_size; alignment *= 4) {
    run(GetParam(), alignment, 1, 50, unlimited, alignment);
  }
}

TEST(RawCacheScratchModelTest, LawsHoldWhereScratchIsGivenBack) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    for (const std::size_t pages : {3U, 5U, 30U}) {
      const std::size_t size = pages * page_size;
      run(size, page_size, 0, raw_cache::no_limit, unlimited, seed, debug_checks::none, steps_per_run, true);
      run(size, page_size, 3, 20, bytes{size * 15}, seed, debug_checks::all, steps_per_run, true);
    }
  }
}

// Clean use is silent in every combination of checks, and the laws hold with what they add to a slab.
TEST_P(RawCacheModelTest, LawsHoldWithEveryCombinationOfDebugChecks) {
  // Each audit looks at all memory: as many steps as take as long.
  const std::size_t steps = GetParam() > 100'000 ? 5 : 60;
  for (unsigned checks = 1; checks <= static_cast<unsigned>(debug_checks::all); ++checks) {
    run(GetParam(), 8, 3, 60, unlimited, checks, static_cast<debug_checks>(checks), steps);
    run(GetParam(), 256, 0, raw_cache::no_limit, round_up_to_pages(bytes{GetParam() * 20}) + 64_KiB, checks,
        static_cast<debug_checks>(checks), steps);
  }
}

// Slabs of many objects, of some, of one; around a page (KF-8); and far above.
INSTANTIATE_TEST_SUITE_P(Sizes, RawCacheModelTest,
                         testing::Values(1, 8, 24, 64, 512, 4000, 4056, 4064, 4072, 4096, 5000, 20'480, 65'536, 1 << 20,
                                         4 << 20));

}  // namespace
}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <functional>

#include <gtest/gtest.h>

#include "base/sanitizers.h"
#include "tests/simulation/story.h"

namespace larder::simulation {
namespace {

#if defined(LARDER_ADDRESS_SANITIZER)
constexpr std::uint64_t slowness = 8;  // of a build with a sanitizer
#else
constexpr std::uint64_t slowness = 1;
#endif

// The same in each run unless another is given: what fails, fails for a change.
std::uint64_t first_seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("LARDER_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::uint64_t{1};
  }();
  return seed;
}

// What many stories have done in all.
struct totals : story_figures {
  std::uint64_t stories = 0;
};

// Plays `count` stories; stops at the first that fails.
totals play(std::uint64_t first, std::uint64_t count, const std::function<outcome(std::uint64_t)>& story) {
  // A story that fails leaves what the whole process shares as it stood.
  static bool failed = false;
  totals all;
  if (failed) {
    ADD_FAILURE() << "an earlier story of this process has failed";
    return all;
  }
  for (std::uint64_t seed = first; all.stories < std::max<std::uint64_t>(count / slowness, 1); ++seed) {
    const outcome result = story(seed);
    if (!result.failure.empty()) {
      ADD_FAILURE() << "the last events:\n"
                    << result.report << "it failed: " << result.failure << "\nreplay with LARDER_TEST_SEED=" << seed;
      failed = true;
      break;
    }
    ++all.stories;
    all += result;
  }
  const auto shown = [](std::uint64_t figure) { return static_cast<unsigned long long>(figure); };
  std::printf(
      "%llu stories, %llu switches, %llu evictions, %llu failed writes, waits: %llu for memory, %llu for "
      "admission, %llu for frames; %llu pages reclaimed; %llu visits of the page daemon\n",
      shown(all.stories), shown(all.switches), shown(all.evictions), shown(all.write_back_errors),
      shown(all.memory_waits), shown(all.admission_waits), shown(all.frame_waits), shown(all.reclaimed),
      shown(all.daemon_rounds));
  return all;
}

// In parts, which run at the same time.
class SimulationTest : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(SimulationTest, StoriesEndWell) {
  const totals all =
      play(first_seed() + GetParam() * 1'000'000, 700, [](std::uint64_t seed) { return run_story(settings_of(seed)); });
  // What is to be tested does happen.
  EXPECT_GT(all.evictions, 0U);
  EXPECT_GT(all.write_back_errors, 0U);
  EXPECT_GT(all.memory_waits, 0U);
  EXPECT_GT(all.admission_waits, 0U);
  EXPECT_GT(all.frame_waits, 0U);
  EXPECT_GT(all.reclaimed, 0U);
  EXPECT_GT(all.daemon_rounds, 0U);
}

INSTANTIATE_TEST_SUITE_P(Parts, SimulationTest, ::testing::Range(std::uint64_t{0}, std::uint64_t{4}));

TEST(SimulationKindsTest, SeedTellsTheSameStoryAgain) {
  std::uint64_t last = 0;
  for (std::uint64_t seed = 1; seed <= 80 / slowness; ++seed) {
    const outcome once = run_story(settings_of(seed));
    const std::vector<std::unique_ptr<int>> moved(100);  // what the heap looks like must not matter
    const outcome again = run_story(settings_of(seed));
    EXPECT_EQ(once.fingerprint, again.fingerprint) << "seed " << seed;
    EXPECT_EQ(once.steps, again.steps) << "seed " << seed;
    EXPECT_NE(once.fingerprint, last) << "seed " << seed;
    last = once.fingerprint;
  }
}

TEST(SimulationKindsTest, CachesOfOneToFourPages) {
  play(first_seed(), 300, [](std::uint64_t seed) {
    story_settings chosen = settings_of(seed);
    chosen.guaranteed_pages = static_cast<std::uint32_t>(1 + seed % 4);
    chosen.extra_pages = 2;
    chosen.cache_pages_max = seed % 3 == 0 ? chosen.guaranteed_pages : 0;
    chosen.object_users = 0;
    return run_story(chosen);
  });
}

// KF-56
TEST(SimulationKindsTest, NoWriteSucceedsForAWhile) {
  const totals all = play(first_seed(), 200, [](std::uint64_t seed) {
    story_settings chosen = settings_of(seed);
    chosen.writes_fail_us = 1000 + seed % 20'000;
    return run_story(chosen);
  });
  EXPECT_GT(all.write_back_errors, all.stories);
}

TEST(SimulationKindsTest, PowerMayGoAtAnyTime) {
  play(first_seed(), 200, [](std::uint64_t seed) {
    story_settings chosen = settings_of(seed);
    chosen.power_cuts = 100;
    chosen.disk.slow_in_1000 = 50;
    chosen.disk.flushes_fail = 100;
    return run_story(chosen);
  });
}

// KF-51: each has a page pinned and wants another, and the pages with all that belongs to them are 600 KiB.
TEST(SimulationKindsTest, ThousandActorsWithAPageEachFinishIn600KiB) {
  const totals all =
      play(first_seed(), 8, [](std::uint64_t seed) { return run_many_with_a_page_each(seed, 1000, 600_KiB); });
  EXPECT_GT(all.admission_waits, 500 * all.stories);
}

// KF-51: who has the lock of the file that owns every page needs one more.
TEST(SimulationKindsTest, FileThatOwnsAllPagesGetsAnother) {
  play(first_seed(), 200, [](std::uint64_t seed) { return run_file_that_owns_all_pages(seed); });
}

}  // namespace
}  // namespace larder::simulation

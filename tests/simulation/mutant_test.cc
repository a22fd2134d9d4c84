// SPDX-License-Identifier: Apache-2.0
#include "base/mutant.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include <gtest/gtest.h>

#include "tests/simulation/story.h"

namespace larder::simulation {
namespace {

using base::mutant;

constexpr std::uint64_t stories_max = 1500;

// Says which of the stories is the first that fails with it; false if none does.
bool some_story_fails(mutant which) {
  base::active_mutant = which;
  for (std::uint64_t seed = 1; seed <= stories_max; ++seed) {
    const outcome result = run_story(settings_of(seed));
    if (result.failure.empty()) continue;
    const std::string first_line = result.failure.substr(0, result.failure.find('\n'));
    std::printf("story %llu: %s\n", static_cast<unsigned long long>(seed), first_line.c_str());
    return true;
  }
  return false;
}

// In a process of its own, for a story that fails leaves what the whole process shares as it stood.
::testing::AssertionResult is_killed(mutant which) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool killed = some_story_fails(which);
    std::fflush(stdout);
    ::_exit(killed ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return ::testing::AssertionFailure() << "no child";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "no story of " << stories_max << " fails as it should (status " << status
                                       << ")";
}

TEST(SimulationMutantTest, ChargeThatLooksFirstAndTakesThenIsCaught) {
  EXPECT_TRUE(is_killed(mutant::limit_in_two_steps));
}

TEST(SimulationMutantTest, ReleaseThatHandsNothingOverIsCaught) {
  EXPECT_TRUE(is_killed(mutant::release_tells_nobody));
}

TEST(SimulationMutantTest, TicketThatForgetsItsGrantIsCaught) { EXPECT_TRUE(is_killed(mutant::timeout_drops_grant)); }

TEST(SimulationMutantTest, PauseThatNobodyEndsIsCaught) { EXPECT_TRUE(is_killed(mutant::pause_never_ends)); }

TEST(SimulationMutantTest, FrontThatAsksForItsOwnFramesIsCaught) {
  EXPECT_TRUE(is_killed(mutant::own_frames_asked_back));
}

TEST(SimulationMutantTest, AdmissionBeyondWhatIsOwnedIsCaught) {
  EXPECT_TRUE(is_killed(mutant::admission_over_granted));
}

TEST(SimulationMutantTest, ReclaimOfAdmittedFramesIsCaught) { EXPECT_TRUE(is_killed(mutant::surplus_of_admitted)); }

TEST(SimulationMutantTest, LostWakeOfWhoWaitsForAFrameIsCaught) {
  EXPECT_TRUE(is_killed(mutant::frame_waiter_unwoken));
}

TEST(SimulationMutantTest, EvictionOfADirtyPageIsCaught) { EXPECT_TRUE(is_killed(mutant::dirty_evicted)); }

// KF-56
TEST(SimulationMutantTest, FailedWriteThatDropsThePageIsCaught) { EXPECT_TRUE(is_killed(mutant::failed_write_cleans)); }

TEST(SimulationMutantTest, ChangeLostDuringAWriteIsCaught) { EXPECT_TRUE(is_killed(mutant::change_lost_in_write)); }

TEST(SimulationMutantTest, FlushThatDoesNotWaitForAWriteIsCaught) {
  EXPECT_TRUE(is_killed(mutant::flush_of_begun_writes));
}

TEST(SimulationMutantTest, FlushThatIsNotDurableIsCaught) { EXPECT_TRUE(is_killed(mutant::flush_without_sync)); }

TEST(SimulationMutantTest, OldBytesAfterADiscardAreCaught) { EXPECT_TRUE(is_killed(mutant::stale_published)); }

TEST(SimulationMutantTest, ReadingInDuringADiscardIsCaught) { EXPECT_TRUE(is_killed(mutant::read_in_while_discarded)); }

TEST(SimulationMutantTest, WritingDuringADiscardIsCaught) { EXPECT_TRUE(is_killed(mutant::written_while_discarded)); }

}  // namespace
}  // namespace larder::simulation

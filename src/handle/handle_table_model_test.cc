// SPDX-License-Identifier: Apache-2.0
//
// Seeded random operations, misuse included, over limits below, at and above a frame's entries, with a budget that has
// room for all frames and with one that is often full. The laws stand in handle_model_test.h; they cover capacity
// (KF-20, KF-25), erasing twice (KF-27), shrinking (KF-28), the audit after each step (KF-29) and the budget's return
// (KF-48).
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/sanitizers.h"
#include "handle/handle_model_test.h"

namespace larder::handle_layer {
namespace {

std::vector<std::uint8_t> random_bytes(std::uint64_t seed, std::size_t count) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> made(count);
  for (std::uint8_t& each : made) each = static_cast<std::uint8_t>(random());
  return made;
}

// An input has some thousand operations.
constexpr std::size_t input_bytes = 4000;
#if defined(LARDER_ADDRESS_SANITIZER) || defined(LARDER_THREAD_SANITIZER)
constexpr std::uint64_t seeds = 2;
constexpr std::size_t inputs_until_handles_come_again = 12;
#else
constexpr std::uint64_t seeds = 5;
constexpr std::size_t inputs_until_handles_come_again = 20;
#endif

class HandleTableModelTest : public testing::TestWithParam<std::size_t> {
 protected:
  static void play(std::size_t frames_max) {
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      handle_model model({.limit = GetParam(), .frames_max = frames_max});
      EXPECT_EQ(model.play(random_bytes(seed, input_bytes)), "") << "seed " << seed;
    }
  }
};

TEST_P(HandleTableModelTest, LawsHoldAfterEachStep) { play(0); }

TEST_P(HandleTableModelTest, LawsHoldWithRoomForOneFrame) { play(1); }

TEST_P(HandleTableModelTest, LawsHoldWithRoomForTwoFrames) { play(2); }

// A table with 8 bits for the generation, the fewest, and few entries that are used often.
class HandleTableGenerationsTest : public testing::Test {
 protected:
  static void play(std::span<const std::uint8_t> input) {
    handle_model model({.limit = raw_handle_table::limit_max / 2 + 1, .frames_max = 1});
    EXPECT_EQ(model.play(input), "");
    EXPECT_GT(model.handles_that_came_again(), 1000U);
  }

  std::vector<std::uint8_t> input_ = random_bytes(1, inputs_until_handles_come_again* input_bytes);
};

TEST_F(HandleTableGenerationsTest, NoHandleComesAgainBeforeAllAreUsed) {
  for (std::uint8_t& each : input_) {
    if ((each & 7) == static_cast<std::uint8_t>(action::shrink)) each ^= 1;  // for_each
  }
  play(input_);
}

TEST_F(HandleTableGenerationsTest, NoHandleComesAgainBeforeHalfAreUsedWhenFramesComeAndGo) { play(input_); }

INSTANTIATE_TEST_SUITE_P(Limits, HandleTableModelTest, testing::Values(1, 2, 3, 255, 256, 257, 511, 513, 1000, 20'000));

TEST(HandleOperationsTest, RandomBytesHoldEveryActionAndKindOfHandle) {
  std::array<int, 8> actions{};
  std::array<int, 5> kinds{};
  const auto input = random_bytes(1, input_bytes);
  operation_reader reader(input);
  while (const auto next = reader.next()) {
    ++actions[static_cast<std::size_t>(next->what)];
    ++kinds[static_cast<std::size_t>(next->with)];
  }
  for (const int count : actions) EXPECT_GT(count, 50);
  for (const int count : kinds) EXPECT_GT(count, 50);
}

TEST(HandleOperationsTest, AnInputThatIsCutShortEndsInZeros) {
  const std::array<std::uint8_t, 2> input{static_cast<std::uint8_t>(action::find) | 6 << 3, 0x12};
  operation_reader reader(input);
  const auto only = reader.next();
  ASSERT_TRUE(only);
  EXPECT_EQ(only->what, action::find);
  EXPECT_EQ(only->with, handle_kind::forged);
  EXPECT_EQ(only->argument, 0x12U);
  EXPECT_FALSE(reader.next());
}

}  // namespace
}  // namespace larder::handle_layer

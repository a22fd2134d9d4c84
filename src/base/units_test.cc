// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>
#include <type_traits>

#include <gtest/gtest.h>

#include <larder/result.h>
#include <larder/units.h>

namespace larder {
namespace {

static_assert(!std::is_convertible_v<bytes, std::uint64_t>, "an amount of bytes is not silently a count");
static_assert(!std::is_convertible_v<std::uint64_t, bytes>, "nor a count an amount of bytes");
static_assert(sizeof(bytes) == sizeof(std::uint64_t));

TEST(UnitsTest, BytesAddScaleAndCompare) {
  EXPECT_EQ(3_KiB + 1_KiB, 4096_B);
  EXPECT_EQ(1_MiB - 1_B, bytes{(1U << 20) - 1});
  EXPECT_EQ(2_MiB * 512, 1_GiB);
  EXPECT_EQ(1_GiB / 1024, 1_MiB);
  EXPECT_EQ(10_KiB / 4_KiB, 2U) << "a quotient of amounts is a count, rounded down";
  EXPECT_LT(1_KiB, 1_MiB);
  EXPECT_EQ(bytes{}, 0_B);
  bytes amount = 1_KiB;
  amount += 24_B;
  EXPECT_EQ(amount, 1048_B);
  amount -= 48_B;
  EXPECT_EQ(amount, 1000_B);
}

TEST(UnitsTest, TwoUnlimitedAmountsStillFitInTheType) { EXPECT_GE((unlimited + unlimited).count, unlimited.count); }

TEST(UnitsTest, RoundUpGivesTheLeastMultipleNotBelow) {
  for (const std::uint64_t unit : {1U, 2U, 64U, 4096U}) {
    for (std::uint64_t value = 0; value < 3 * unit + 2; ++value) {
      const std::uint64_t rounded = round_up(value, unit);
      ASSERT_EQ(rounded % unit, 0U) << value << " by " << unit;
      ASSERT_GE(rounded, value) << value << " by " << unit;
      ASSERT_LT(rounded - value, unit) << value << " by " << unit;
    }
  }
  EXPECT_EQ(round_up_to_pages(0_B), 0_B);
  EXPECT_EQ(round_up_to_pages(1_B), 4_KiB);
  EXPECT_EQ(round_up_to_pages(4_KiB), 4_KiB);
  EXPECT_EQ(round_up_to_pages(4097_B), 8_KiB);
}

TEST(ResultTest, HoldsAValueOrAnError) {
  const result<std::string> value = std::string("here");
  ASSERT_TRUE(value);
  EXPECT_EQ(*value, "here");
  EXPECT_FALSE(value.error());
  const result<std::string> failure = error_from(ENOMEM);
  EXPECT_FALSE(failure);
  EXPECT_EQ(failure.error(), std::errc::not_enough_memory);
}

TEST(ResultTest, MovesItsValueOut) {
  result<std::unique_ptr<int>> made = std::make_unique<int>(7);
  const std::unique_ptr<int> taken = *std::move(made);
  EXPECT_EQ(*taken, 7);
}

TEST(ResultTest, VoidIsSuccessOrAnError) {
  EXPECT_TRUE(result<void>());
  const result<void> failure = error_from(EIO);
  EXPECT_FALSE(failure);
  EXPECT_EQ(failure.error(), error_from(EIO));
}

}  // namespace
}  // namespace larder

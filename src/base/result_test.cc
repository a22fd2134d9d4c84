// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <memory>

#include <gtest/gtest.h>

#include <larder/result.h>

namespace larder {
namespace {

TEST(ResultTest, SuccessHasNoError) {
  const result<void> done;
  EXPECT_TRUE(done);
  EXPECT_EQ(done.error(), std::error_code());
  const result<int> seven = 7;
  ASSERT_TRUE(seven);
  EXPECT_EQ(*seven, 7);
  EXPECT_EQ(seven.error(), std::error_code());
}

TEST(ResultTest, ErrorKeepsItsNumberAndCategory) {
  const result<void> failed = error_from(ENOMEM);
  EXPECT_FALSE(failed);
  EXPECT_EQ(failed.error(), std::errc::not_enough_memory);
  EXPECT_EQ(failed.error().category(), std::generic_category());
  const std::error_code systems(EIO, std::system_category());
  const result<int> other = systems;
  EXPECT_FALSE(other);
  EXPECT_EQ(other.error(), systems);
}

// As it always was: an error code that is none is success.
TEST(ResultTest, EmptyErrorCodeIsSuccess) {
  const result<void> done = std::error_code();
  EXPECT_TRUE(done);
  EXPECT_EQ(done.error(), std::error_code());
}

TEST(ResultTest, ValueIsMovedOut) {
  result<std::unique_ptr<int>> made = std::make_unique<int>(3);
  const std::unique_ptr<int> taken = *std::move(made);
  EXPECT_EQ(*taken, 3);
}

}  // namespace
}  // namespace larder

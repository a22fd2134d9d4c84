// SPDX-License-Identifier: Apache-2.0
#include "cache/span.h"

#include <cerrno>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::cache {
namespace {

TEST(SpanTest, IsChargedWhileItIsMapped) {
  memory_budget budget("test");
  const span_shape shape{12_KiB, 16384, 8_KiB};
  const result<void*> mapped = map_span(budget, shape);
  ASSERT_TRUE(mapped);
  EXPECT_EQ(budget.used(), 8_KiB);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*mapped) % 16384, 0U);
  unmap_span(budget, shape, *mapped);
  EXPECT_EQ(budget.used(), bytes{});
}

TEST(SpanTest, RefusedByTheBudgetIsNotMapped) {
  memory_budget budget("small", {.limit = 4_KiB});
  os::fault::arm(os::call::map, 1, ENOMEM);
  const result<void*> mapped = map_span(budget, {8_KiB, page_size, 8_KiB});
  EXPECT_EQ(os::fault::uses(), 0U);
  os::fault::disarm();
  EXPECT_EQ(mapped.error(), error_from(ENOMEM));
}

// KF-48
TEST(SpanTest, AFailedMappingGivesItsChargeBack) {
  memory_budget budget("test");
  os::fault::arm(os::call::map, 1, ENOMEM, true);
  EXPECT_EQ(map_span(budget, {8_KiB, page_size, 8_KiB}).error(), error_from(ENOMEM));
  os::fault::disarm();
  EXPECT_EQ(budget.used(), bytes{});
}

}  // namespace
}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#include "cache/slab_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::cache {
namespace {

class SlabSourceTest : public testing::Test {
 protected:
  ~SlabSourceTest() override { EXPECT_EQ(budget.used(), bytes{}); }

  result<void*> take(slab_source& source, const span_shape& shape) {
    EXPECT_TRUE(budget.try_charge(shape.charge));
    return source.take_charged();
  }

  memory_budget budget{"test"};
  const span_shape page{4_KiB, page_size, 4_KiB};
};

TEST_F(SlabSourceTest, ManySlabsTakeFewMappings) {
  slab_source source(budget, page);
  std::vector<void*> slabs;
  for (int i = 0; i < 10'000; ++i) slabs.push_back(*take(source, page));
  EXPECT_EQ(std::set<void*>(slabs.begin(), slabs.end()).size(), slabs.size());
  EXPECT_LE(source.chunks(), 10'000 / 64 + 8);
  // Every second one goes, and nothing is mapped for those that come.
  const std::size_t before = source.chunks();
  for (std::size_t i = 0; i < slabs.size(); i += 2) source.give_back(slabs[i]);
  for (std::size_t i = 0; i < slabs.size(); i += 2) slabs[i] = *take(source, page);
  EXPECT_LE(source.chunks(), before);
  for (void* slab : slabs) source.give_back(slab);
  EXPECT_EQ(source.chunks(), 0U);
}

TEST_F(SlabSourceTest, AlignmentHoldsForLengthsThatAreNoPowerOfTwo) {
  const span_shape odd{12_KiB, 16 << 10, 8_KiB};
  slab_source source(budget, odd);
  std::vector<void*> slabs;
  for (int i = 0; i < 100; ++i) {
    slabs.push_back(*take(source, odd));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slabs.back()) % odd.alignment, 0U);
    std::memset(slabs.back(), 1, odd.length.count);
  }
  EXPECT_EQ(budget.used(), 800_KiB);
  for (void* slab : slabs) source.give_back(slab);
}

// Also where pages were written before.
TEST_F(SlabSourceTest, SlabsComeZeroed) {
  slab_source source(budget, page);
  std::mt19937_64 random(1);
  std::vector<unsigned char*> slabs;
  for (int step = 0; step < 3000; ++step) {
    if (slabs.empty() || random() % 5 < 3) {
      auto* slab = static_cast<unsigned char*>(*take(source, page));
      ASSERT_EQ(std::count(slab, slab + page_size, 0), static_cast<std::ptrdiff_t>(page_size));
      std::memset(slab, 0xff, page_size);
      slabs.push_back(slab);
    } else {
      std::swap(slabs[random() % slabs.size()], slabs.back());
      source.give_back(slabs.back());
      slabs.pop_back();
    }
    ASSERT_EQ(budget.used(), bytes{slabs.size() * page_size});
  }
  for (void* slab : slabs) source.give_back(slab);
}

// KF-48: where the system has no room for many slabs it may have for one; where it has for none, the charge goes back.
TEST_F(SlabSourceTest, WithoutRoomForAChunkASlabWillDo) {
  slab_source source(budget, page);
  std::vector<void*> slabs;
  for (int i = 0; i < 4; ++i) slabs.push_back(*take(source, page));  // chunks of 1, 1 and 2
  os::fault::arm(os::call::map, 1, ENOMEM);
  slabs.push_back(*take(source, page));
  EXPECT_TRUE(os::fault::fired());
  os::fault::arm(os::call::map, 1, ENOMEM, true);
  const bytes before = budget.used();
  const result<void*> refused = take(source, page);
  os::fault::disarm();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), error_from(ENOMEM));
  EXPECT_EQ(budget.used(), before);
  for (void* slab : slabs) source.give_back(slab);
}

TEST_F(SlabSourceTest, PagesThatCannotBeDiscardedGoWithTheirAddresses) {
  slab_source source(budget, page);
  std::vector<void*> slabs;
  for (int i = 0; i < 16; ++i) slabs.push_back(*take(source, page));
  os::fault::arm(os::call::advise, 1, ENOMEM, true);
  source.give_back(slabs[10]);
  os::fault::disarm();
  EXPECT_EQ(budget.used(), bytes{15 * page_size});
  void* next = *take(source, page);
  EXPECT_NE(next, slabs[10]);
  slabs[10] = next;
  for (void* slab : slabs) source.give_back(slab);
  EXPECT_EQ(source.chunks(), 0U);
}

}  // namespace
}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#include "cache/slab.h"

#include <bit>
#include <cerrno>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "cache/slab_layer.h"
#include "os/memory.h"

namespace larder::cache {
namespace {

void check_layout(const slab_geometry& layout, std::size_t size, std::size_t alignment) {
  EXPECT_GE(layout.stride, size);
  EXPECT_EQ(layout.stride % alignment, 0U);
  EXPECT_EQ(layout.first_offset % alignment, 0U);
  EXPECT_GE(layout.first_offset, slab::header_length(layout.bitmap_words));
  EXPECT_GE(layout.bitmap_words * 64, layout.capacity);
  EXPECT_LE(layout.first_offset + layout.capacity * layout.stride, layout.shape.length.count);
  EXPECT_EQ(layout.shape.length.count % page_size, 0U);
  EXPECT_TRUE(std::has_single_bit(layout.shape.alignment));
  EXPECT_GE(layout.shape.alignment, layout.shape.length.count);
}

// KF-8
TEST(SlabGeometryTest, HoldsForEverySizeAndAlignment) {
  for (std::size_t alignment = 1; alignment <= page_size; alignment *= 2) {
    for (std::size_t size = 1; size <= std::size_t{4} << 20; size += 1 + size / 7) {
      SCOPED_TRACE(testing::Message() << "size " << size << ", alignment " << alignment);
      const result<slab_geometry> layout = slab_geometry::choose(size, alignment, {});
      ASSERT_TRUE(layout);
      check_layout(*layout, size, alignment);
      EXPECT_EQ(layout->shape.charge, layout->shape.length);
      const std::size_t waste = layout->shape.length.count - layout->capacity * layout->stride;
      EXPECT_LE(waste * 8, layout->shape.length.count);
      EXPECT_GE(layout->capacity, layout->stride <= 8192 ? 8U : 1U);
      EXPECT_LE(layout->shape.length.count, std::max<std::size_t>(128 << 10, layout->stride + 2 * page_size));
    }
  }
}

TEST(SlabGeometryTest, ThreeStacksOf20KiBMakeASlabOf64KiB) {
  const result<slab_geometry> layout = slab_geometry::choose(20 << 10, page_size, 4_KiB);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->capacity, 3U);
  EXPECT_EQ(layout->first_offset, page_size);
  EXPECT_EQ(layout->shape.length, 64_KiB);
  EXPECT_EQ(layout->shape.charge, 52_KiB);
}

TEST(SlabGeometryTest, SmallObjectsComeByThePage) {
  EXPECT_EQ(slab_geometry::choose(64, 8, {})->shape.length, 4_KiB);
  // Debug builds know besides which objects are out.
  EXPECT_EQ(slab_geometry::choose(64, 8, {})->capacity, slab::header_length(1) <= 64 ? 63U : 62U);
  EXPECT_EQ(slab_geometry::choose(1, 1, {})->shape.length, 4_KiB);
}

TEST(SlabGeometryTest, RefusesWhatMakesNoSense) {
  const auto error = [](std::size_t size, std::size_t alignment, bytes uncharged) {
    return slab_geometry::choose(size, alignment, uncharged).error();
  };
  const std::error_code invalid = error_from(EINVAL);
  EXPECT_EQ(error(0, 8, {}), invalid);
  EXPECT_EQ(error(slab_geometry::size_max + 1, 8, {}), invalid);
  EXPECT_EQ(error(64, 0, {}), invalid);
  EXPECT_EQ(error(64, 24, {}), invalid);
  EXPECT_EQ(error(64, 8192, {}), invalid);
  EXPECT_EQ(error(8192, 4096, 100_B), invalid);
  EXPECT_EQ(error(4096, 4096, 4_KiB), invalid);
}

class SlabTest : public testing::TestWithParam<std::size_t> {
 protected:
  SlabTest() : memory(*os::map(layout.shape.length, layout.shape.alignment)), made(*slab::make(memory, layout)) {}
  ~SlabTest() override { os::unmap(memory, layout.shape.length); }

  const slab_geometry layout = slab_geometry::with_capacity(24, 8, {}, GetParam());
  const std::string name = "test";
  slab_layer layer{layout, name, SIZE_MAX, 0};
  void* const memory;
  slab& made;
};

// KF-7: capacities that are no multiple of a bitmap's word.
TEST_P(SlabTest, GivesEachObjectOnceAndKnowsItsNumber) {
  const std::size_t capacity = GetParam();
  check_layout(layout, 24, 8);
  EXPECT_EQ(made.free_count(), capacity);
  EXPECT_EQ(made.take_spare(), nullptr);
  std::set<void*> taken;
  for (std::size_t i = 0; i < capacity; ++i) {
    void* object = made.take_unbuilt();
    ASSERT_TRUE(taken.insert(object).second);
    const std::size_t index = made.index_of(object);
    ASSERT_LT(index, capacity);
    EXPECT_EQ(made.object(index), object);
    EXPECT_TRUE(made.is_built(index));
    EXPECT_FALSE(made.is_free(index));
  }
  made.audit("test");
  EXPECT_EQ(made.take_unbuilt(), nullptr);
  EXPECT_EQ(made.free_count(), 0U);
  EXPECT_EQ(made.built_count(), capacity);

  for (void* object : taken) made.give(made.index_of(object), true);
  made.audit("test");
  EXPECT_EQ(made.spare_count(), capacity);
  std::set<void*> again;
  while (void* object = made.take_spare()) again.insert(object);
  EXPECT_EQ(again, taken);
  made.audit("test");
}

TEST_P(SlabTest, AnObjectGivenBackUnbuiltIsBuiltAnew) {
  void* object = made.take_unbuilt();
  made.give(made.index_of(object), false);
  made.audit("test");
  EXPECT_EQ(made.built_count(), 0U);
  EXPECT_EQ(made.take_spare(), nullptr);
  EXPECT_EQ(made.take_unbuilt(), object);
}

TEST_P(SlabTest, KnowsWhatIsNotTheStartOfAnObject) {
  const std::size_t capacity = GetParam();
  const auto* first = static_cast<const char*>(made.object(0));
  EXPECT_EQ(made.index_of(first + 1), capacity);
  EXPECT_EQ(made.index_of(first - 24), capacity);
  EXPECT_EQ(made.index_of(memory), capacity);
  EXPECT_EQ(made.index_of(first + 24 * capacity), capacity);
}

INSTANTIATE_TEST_SUITE_P(Capacities, SlabTest, testing::Values(1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1025));

}  // namespace
}  // namespace larder::cache

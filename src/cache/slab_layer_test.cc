// SPDX-License-Identifier: Apache-2.0
#include "cache/slab_layer.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "os/memory.h"

namespace larder::cache {
namespace {

// A layer and the slabs that a test adds to it.
class layer_under_test {
 public:
  layer_under_test(std::size_t capacity, std::size_t limit, std::size_t reservation,
                   slab_order order = slab_order::fullest_first, bool finds_cold = false)
      : layout(slab_geometry::with_capacity(8, 8, {}, capacity)),
        layer(layout, name, limit, reservation, order, finds_cold) {}
  ~layer_under_test() {
    for (slab* each : slabs) os::unmap(each, layout.shape.length);
  }
  slab& add_slab() {
    slab* added = slab::make(*os::map(layout.shape.length, layout.shape.alignment), layout);
    slabs.push_back(added);
    layer.insert(*added);
    return *added;
  }
  slab& slab_of(const void* object) const { return layer.slab_of(object, "look-up"); }
  // Fills `count` slabs to the last object; returns the objects of each.
  std::vector<std::vector<void*>> fill(std::size_t count) {
    std::vector<std::vector<void*>> objects(count);
    for (std::vector<void*>& of_slab : objects) {
      add_slab();
      for (std::size_t i = 0; i < layout.capacity; ++i) of_slab.push_back(layer.take().object);
    }
    return objects;
  }

  const std::string name = "test";
  const slab_geometry layout;
  slab_layer layer;
  std::vector<slab*> slabs;
};

TEST(SlabLayerTest, TakesFromTheFullestSlabWithRoom) {
  layer_under_test test(10, SIZE_MAX, 0);
  const auto objects = test.fill(3);
  EXPECT_EQ(test.layer.full_slabs(), 3U);
  EXPECT_EQ(test.layer.take().object, nullptr);
  // 4, 2 and 7 objects free.
  for (std::size_t i = 0; i < 4; ++i) test.layer.put(objects[0][i]);
  for (std::size_t i = 0; i < 2; ++i) test.layer.put(objects[1][i]);
  for (std::size_t i = 0; i < 7; ++i) test.layer.put(objects[2][i]);
  test.layer.audit();
  for (const auto& [from, count] : {std::pair{1, 2}, {0, 4}, {2, 7}}) {
    slab& expected = test.slab_of(objects[static_cast<std::size_t>(from)][0]);
    for (int i = 0; i < count; ++i) {
      const slab_layer::taken taken = test.layer.take();
      EXPECT_TRUE(taken.built);
      EXPECT_EQ(&test.slab_of(taken.object), &expected);
      test.layer.audit();
    }
  }
  EXPECT_EQ(test.layer.take().object, nullptr);
}

TEST(SlabLayerTest, ABatchComesFromTheFullestSlabsAndOpensNoEmptyOne) {
  layer_under_test test(10, SIZE_MAX, 0);
  const auto objects = test.fill(3);
  for (std::size_t i = 0; i < 4; ++i) test.layer.put(objects[0][i]);
  for (std::size_t i = 0; i < 2; ++i) test.layer.put(objects[1][i]);
  for (std::size_t i = 0; i < 10; ++i) test.layer.put(objects[2][i]);
  EXPECT_EQ(test.layer.empty_slabs(), 1U);
  void* batch[20];
  ASSERT_EQ(test.layer.take_batch(batch, 3), 3U);
  EXPECT_EQ(&test.slab_of(batch[0]), &test.slab_of(objects[1][0]));
  EXPECT_EQ(&test.slab_of(batch[1]), &test.slab_of(objects[1][0]));
  EXPECT_EQ(&test.slab_of(batch[2]), &test.slab_of(objects[0][0]));
  EXPECT_EQ(test.layer.take_batch(batch, 20), 3U);
  EXPECT_EQ(test.layer.empty_slabs(), 1U);
  test.layer.audit();
}

// KF-7: order by occupancy, over capacities around each word's and group's boundary.
TEST(SlabLayerTest, OrderHoldsForEveryCapacity) {
  for (std::size_t capacity = 1; capacity <= 1025; capacity += capacity < 140 ? 1 : 59) {
    SCOPED_TRACE(testing::Message() << "capacity " << capacity);
    const std::size_t group_width = (capacity + 63) / 64;
    layer_under_test test(capacity, SIZE_MAX, 0);
    auto objects = test.fill(5);
    std::vector<void*> out;
    std::mt19937_64 random(capacity);
    for (auto& of_slab : objects) out.insert(out.end(), of_slab.begin(), of_slab.end());
    std::shuffle(out.begin(), out.end(), random);
    for (int step = 0; step < 200; ++step) {
      for (std::size_t puts = random() % (out.size() + 1); puts > 0; --puts) {
        test.layer.put(out.back());
        out.pop_back();
      }
      for (std::size_t gets = random() % 40; gets > 0; --gets) {
        std::size_t fewest_free = SIZE_MAX;
        for (const slab* each : test.slabs) {
          if (each->free_count() > 0) fewest_free = std::min(fewest_free, each->free_count());
        }
        void* object = test.layer.take().object;
        ASSERT_EQ(object == nullptr, fewest_free == SIZE_MAX);
        if (object == nullptr) break;
        ASSERT_LT(test.slab_of(object).free_count() + 1, fewest_free + group_width);
        out.insert(out.begin() + static_cast<std::ptrdiff_t>(random() % (out.size() + 1)), object);
      }
      if (step % 20 == 0) test.layer.audit();
    }
  }
}

TEST(SlabLayerTest, LastFullFirstTakesFromTheSlabThatWasFullUntilLast) {
  layer_under_test test(10, SIZE_MAX, 0, slab_order::last_full_first);
  const auto objects = test.fill(4);
  // In this order they cease to be full; then others become emptier.
  for (const std::size_t of : {2U, 0U, 1U}) test.layer.put(objects[of][9]);
  for (std::size_t i = 0; i < 5; ++i) test.layer.put(objects[0][i]);
  for (std::size_t i = 0; i < 10; ++i) test.layer.put(objects[3][i]);
  test.layer.audit();
  for (const auto& [from, count] : {std::pair{1, 1}, {0, 6}, {2, 1}, {3, 10}}) {  // the empty one last
    slab& expected = test.slab_of(objects[static_cast<std::size_t>(from)][0]);
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(&test.slab_of(test.layer.take().object), &expected);
      test.layer.audit();
    }
  }
  EXPECT_EQ(test.layer.take().object, nullptr);
}

TEST(SlabLayerTest, LatestFirstTakesFromTheSlabThatWasPutToLast) {
  layer_under_test test(10, SIZE_MAX, 0, slab_order::latest_first);
  const auto objects = test.fill(3);
  for (const auto& [of, index] : {std::pair{0, 0}, {1, 0}, {1, 1}, {2, 0}, {0, 1}, {0, 2}, {1, 2}}) {
    test.layer.put(objects[static_cast<std::size_t>(of)][static_cast<std::size_t>(index)]);
    test.layer.audit();
  }
  for (const auto& [from, count] : {std::pair{1, 3}, {0, 3}, {2, 1}}) {
    slab& expected = test.slab_of(objects[static_cast<std::size_t>(from)][0]);
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(&test.slab_of(test.layer.take().object), &expected);
      test.layer.audit();
    }
  }
  EXPECT_EQ(test.layer.take().object, nullptr);
}

TEST(SlabLayerTest, TheLawsHoldInTheOtherOrdersForEveryCapacity) {
  for (const slab_order order : {slab_order::latest_first, slab_order::last_full_first}) {
    for (const std::size_t capacity : {1U, 2U, 63U, 64U, 65U, 1000U}) {
      SCOPED_TRACE(testing::Message() << "capacity " << capacity);
      layer_under_test test(capacity, SIZE_MAX, 0, order);
      std::vector<void*> out;
      std::mt19937_64 random(capacity);
      for (int step = 0; step < 4000; ++step) {
        if (out.empty() || random() % 100 < (step < 2000 ? 60 : 40)) {
          void* object = test.layer.take().object;
          if (object == nullptr) {
            test.add_slab();
            object = test.layer.take().object;
          }
          ASSERT_NE(object, nullptr);
          out.push_back(object);
        } else {
          std::swap(out[random() % out.size()], out.back());
          test.layer.put(out.back());
          out.pop_back();
        }
        ASSERT_EQ(test.layer.handed_out(), out.size());
        if (step % 50 == 0) test.layer.audit();
      }
    }
  }
}

// The slabs in use when 2000 objects came and 1600 went at random, and the 400 that are left were replaced one for one
// for a while. These would fit in 20 slabs; there are 100.
std::size_t slabs_in_use_after_random_lifetimes(slab_order order) {
  layer_under_test test(20, SIZE_MAX, 0, order);
  std::mt19937_64 random(1);
  std::vector<void*> out;
  const auto get = [&] {
    slab_layer::taken taken = test.layer.take();
    if (taken.object == nullptr) {
      test.add_slab();
      taken = test.layer.take();
    }
    out.push_back(taken.object);
  };
  const auto put = [&] {
    std::swap(out[random() % out.size()], out.back());
    test.layer.put(out.back());
    out.pop_back();
  };
  while (out.size() < 2000) get();
  while (out.size() > 400) put();
  for (int round = 0; round < 4000; ++round) {
    put();
    get();
  }
  EXPECT_EQ(test.layer.slabs(), 100U);
  test.layer.audit();
  return test.layer.full_slabs() + test.layer.partial_slabs();
}

// The purpose of the order: where lifetimes are random and use goes up and down, slabs become empty.
TEST(SlabLayerTest, RandomLifetimesLeaveFewSlabsInUse) {
  const std::size_t in_use = slabs_in_use_after_random_lifetimes(slab_order::fullest_first);
  EXPECT_LE(in_use, 32U);
  EXPECT_GE(slabs_in_use_after_random_lifetimes(slab_order::latest_first), 2 * in_use);
}

TEST(SlabLayerTest, LimitCountsBuiltObjectsAndBuiltOnesAreServedAtIt) {
  layer_under_test test(10, 12, 0);
  const auto first = test.fill(1);
  test.add_slab();
  void* eleventh = test.layer.take().object;
  void* twelfth = test.layer.take().object;
  const slab_layer::taken refused = test.layer.take();
  EXPECT_EQ(refused.object, nullptr);
  EXPECT_TRUE(refused.at_limit);
  // The fullest slab with room is the second, none of whose free objects is built; the first has one.
  test.layer.put(first[0][3]);
  const slab_layer::taken served = test.layer.take();
  EXPECT_EQ(served.object, first[0][3]);
  EXPECT_TRUE(served.built);
  for (std::size_t i = 0; i < 9; ++i) test.layer.put(first[0][i]);
  EXPECT_TRUE(test.layer.take().built);  // now the second is the fuller one, and still nothing is built
  test.layer.audit();
  test.layer.put(twelfth);
  test.layer.put(eleventh);
  test.layer.audit();
}

TEST(SlabLayerTest, WithoutRoomItSaysWhetherASlabWouldHelp) {
  layer_under_test test(2, 3, 0);
  EXPECT_FALSE(test.layer.take().at_limit);
  test.fill(1);
  EXPECT_FALSE(test.layer.take().at_limit);
  test.add_slab();
  EXPECT_NE(test.layer.take().object, nullptr);
  EXPECT_TRUE(test.layer.take().at_limit);
}

TEST(SlabLayerTest, AnObjectThatCouldNotBeBuiltDoesNotCount) {
  layer_under_test test(10, 1, 0);
  test.add_slab();
  const slab_layer::taken taken = test.layer.take();
  EXPECT_FALSE(taken.built);
  test.layer.put_unbuilt(taken.object);
  test.layer.audit();
  EXPECT_EQ(test.layer.built(), 0U);
  EXPECT_EQ(test.layer.take().object, taken.object);
}

TEST(SlabLayerTest, SurplusIsWhatTheReservationDoesNotNeed) {
  layer_under_test test(10, SIZE_MAX, 15);
  const auto objects = test.fill(3);
  EXPECT_EQ(test.layer.remove_surplus(), nullptr);
  for (const auto& of_slab : objects) {
    for (void* object : of_slab) test.layer.put(object);
  }
  // Empty for longest first.
  EXPECT_EQ(test.layer.remove_surplus(), &test.slab_of(objects[0][0]));
  EXPECT_EQ(test.layer.remove_surplus(), nullptr);
  EXPECT_EQ(test.layer.built(), 20U);
  slab& unused = test.add_slab();
  EXPECT_EQ(test.layer.remove_surplus(), &unused);
  EXPECT_EQ(test.layer.remove_surplus(), nullptr);
  test.layer.audit();
}

// KF-12: many full slabs and one empty.
TEST(SlabLayerTest, TheOnlyEmptySlabBesideFullOnesCanGo) {
  for (const std::size_t capacity : {1U, 2U, 40U}) {
    layer_under_test test(capacity, SIZE_MAX, 0);
    const auto objects = test.fill(4);
    for (void* object : objects[2]) test.layer.put(object);
    test.layer.audit();
    EXPECT_EQ(test.layer.remove_surplus(), &test.slab_of(objects[2][0]));
    EXPECT_EQ(test.layer.remove_surplus(), nullptr);
    test.layer.audit();
    EXPECT_EQ(test.layer.full_slabs(), 3U);
  }
}

TEST(SlabLayerDeathTest, MisuseIsNamed) {
  layer_under_test test(10, SIZE_MAX, 0);
  layer_under_test other(10, SIZE_MAX, 0);
  test.add_slab();
  other.add_slab();
  void* object = test.layer.take().object;
  void* foreign = other.layer.take().object;
  int on_stack = 0;
  EXPECT_DEATH(test.layer.put(&on_stack), "cache \"test\": put of .*, which is no object of this cache");
  EXPECT_DEATH(test.layer.put(nullptr), "which is no object of this cache");
  EXPECT_DEATH(test.layer.put(foreign), "which is no object of this cache");
  EXPECT_DEATH(test.layer.put(static_cast<char*>(object) + 1), "which is not the start of an object");
  test.layer.put(object);
  EXPECT_DEATH(test.layer.put(object), "which is free already \\(put twice\\?\\)");
}

struct cold_slabs : layer_under_test {
  cold_slabs() : layer_under_test(4, SIZE_MAX, 0, slab_order::fullest_first, true), objects(fill(3)) {
    // One object of each is free; they came back in the order of the slabs.
    for (const auto& of_slab : objects) layer.put(of_slab[0]);
  }
  void expect_none(bool any = false) {
    layer.audit();
    EXPECT_EQ(layer.find_cold(any), nullptr);
  }
  void expect_next(std::size_t number, bool any = false) {
    layer.audit();
    EXPECT_EQ(layer.find_cold(any), &slab_of(objects[number][0]));
    layer.audit();
  }
  const std::vector<std::vector<void*>> objects;
};

TEST(SlabLayerTest, ASlabIsColdOnceNobodyUsedItForAWholePeriod) {
  cold_slabs test;
  test.expect_none();
  test.layer.begin_period();
  test.expect_none();
  test.layer.begin_period();
  for (const std::size_t number : {0U, 1U, 2U}) {
    EXPECT_TRUE(test.layer.has_cold());
    test.expect_next(number);
  }
  test.expect_none();
  EXPECT_FALSE(test.layer.has_cold()) << "each is found once";
  test.layer.begin_period();
  test.expect_none(true);
}

TEST(SlabLayerTest, AnyFindsWarmSlabsTheLongestUnusedFirst) {
  cold_slabs test;
  for (const std::size_t number : {0U, 1U, 2U}) test.expect_next(number, true);
  test.expect_none(true);
}

TEST(SlabLayerTest, UseMakesASlabWarm) {
  cold_slabs test;
  test.layer.begin_period();
  test.layer.put(test.objects[0][1]);
  EXPECT_EQ(test.layer.take().object, test.objects[2][0]) << "of the fullest";
  test.layer.put(test.objects[2][0]);
  test.layer.begin_period();
  test.expect_next(1);
  test.expect_none();
  test.layer.begin_period();
  test.expect_next(0);
  test.expect_next(2);
}

// What is left of a cold slab after a take is as it was, and what comes back to it is not.
TEST(SlabLayerTest, AColdSlabIsFoundAgainOnlyAfterAnObjectCameBack) {
  cold_slabs test;
  test.layer.put(test.objects[0][1]);
  test.layer.put(test.objects[0][2]);
  test.expect_next(1, true);
  test.expect_next(2, true);
  test.expect_next(0, true);
  void* taken[4];
  EXPECT_EQ(test.layer.take_batch(taken, 3), 3U);
  test.layer.audit();
  EXPECT_EQ(test.layer.take_spare(), test.objects[0][1]) << "also of a cold slab";
  test.expect_none(true);
  EXPECT_FALSE(test.layer.has_cold());
  test.layer.put(test.objects[0][0]);
  test.expect_next(0, true);
  EXPECT_EQ(test.layer.take_spare(), test.objects[0][0]);
  EXPECT_EQ(test.layer.take_spare(), test.objects[0][2]);
  EXPECT_EQ(test.layer.take_spare(), nullptr);
  test.expect_none(true);
}

// The stamp comes round: a slab that looks as if it was used just now is found a little later.
TEST(SlabLayerTest, PeriodsWithoutEndHideNoColdSlab) {
  cold_slabs test;
  for (const std::size_t periods : {65'533U, 65'534U, 65'535U, 65'536U}) {
    for (std::size_t i = 0; i < periods; ++i) test.layer.begin_period();
    std::size_t found = 0;
    for (int late = 0; late < 3; ++late) {
      while (slab* cold = test.layer.find_cold(false)) {
        ++found;
        test.layer.audit();
        EXPECT_NE(cold->spare_count(), 0U);
      }
      test.layer.begin_period();
    }
    EXPECT_EQ(found, 3U) << periods;
    // Each slab's free object comes back once more.
    void* taken[3];
    for (void*& object : taken) object = test.layer.take_spare();
    for (void* object : taken) test.layer.put(object);
  }
}

TEST(SlabLayerTest, ALayerThatWasNotAskedFindsNoColdSlab) {
  layer_under_test test(4, SIZE_MAX, 0);
  const auto objects = test.fill(1);
  test.layer.put(objects[0][0]);
  for (int i = 0; i < 3; ++i) test.layer.begin_period();
  EXPECT_EQ(test.layer.find_cold(true), nullptr);
  EXPECT_FALSE(test.layer.has_cold());
}

}  // namespace
}  // namespace larder::cache

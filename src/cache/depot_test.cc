// SPDX-License-Identifier: Apache-2.0
#include "cache/depot.h"

#include <cerrno>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::cache {
namespace {

class DepotTest : public testing::Test {
 protected:
  depot::batch* filled(depot& store, std::size_t count) {
    depot::batch* batch = store.blank();
    batch->count = count;
    for (std::size_t i = 0; i < count; ++i) batch->objects[i] = &batch->objects[i];
    return batch;
  }
  void drain(depot& store) {
    while (depot::batch* batch = store.take()) store.recycle(batch);
  }

  memory_budget budget{"test"};
};

TEST_F(DepotTest, GivesTheBatchThatCameLast) {
  depot store(budget);
  EXPECT_EQ(store.take(), nullptr);
  depot::batch* first = filled(store, 3);
  depot::batch* second = filled(store, depot::batch_max);
  store.add(first);
  store.add(second);
  EXPECT_EQ(store.batches(), 2U);
  EXPECT_EQ(store.objects(), 3 + depot::batch_max);
  store.audit("test");
  EXPECT_EQ(store.take(), second);
  EXPECT_EQ(store.take(), first);
  store.recycle(first);
  store.recycle(second);
  store.audit("test");
}

TEST_F(DepotTest, WhatLayThroughAPeriodIsSurplus) {
  depot store(budget);
  store.begin_period();
  for (int i = 0; i < 5; ++i) store.add(filled(store, 1));
  EXPECT_EQ(store.surplus(), 0U);  // came in this period
  store.begin_period();
  EXPECT_EQ(store.surplus(), 5U);
  depot::batch* taken[2] = {store.take(), store.take()};
  for (depot::batch* batch : taken) store.add(batch);
  EXPECT_EQ(store.surplus(), 3U);  // two were needed
  store.begin_period();
  EXPECT_EQ(store.surplus(), 5U);
  drain(store);
}

TEST_F(DepotTest, PagesThatWereSpareThroughAPeriodGoBackAndOneStays) {
  depot store(budget);
  for (int i = 0; i < 80; ++i) store.add(filled(store, 2));
  EXPECT_EQ(budget.used(), 40_KiB);
  EXPECT_EQ(store.charged(), 40_KiB);
  drain(store);
  store.begin_period();
  EXPECT_EQ(budget.used(), 40_KiB);  // all were needed in this period
  for (int i = 0; i < 17; ++i) store.add(filled(store, 2));
  drain(store);
  store.begin_period();
  EXPECT_EQ(budget.used(), 12_KiB);  // three were
  store.begin_period();
  EXPECT_EQ(budget.used(), 4_KiB);
  store.release_spare();
  EXPECT_EQ(budget.used(), bytes{});
  store.audit("test");
}

// Design §8: once warm, no system call for memory.
TEST_F(DepotTest, BurstsOfBatchesMapNothingOnceWarm) {
  depot store(budget);
  const auto burst = [&] {
    for (int i = 0; i < 50; ++i) store.add(filled(store, 1));
    drain(store);
  };
  burst();
  os::fault::arm(os::call::map, ~std::uint64_t{0}, ENOMEM);
  for (int i = 0; i < 100; ++i) {
    burst();
    if (i % 10 == 0) store.begin_period();
    store.audit("test");
  }
  const std::uint64_t calls = os::fault::uses();
  os::fault::disarm();
  EXPECT_EQ(calls, 0U);
}

// KF-48
TEST_F(DepotTest, WithoutMemoryThereIsNoBlankBatch) {
  memory_budget full("full", {.limit = 4_KiB}, &budget);
  depot store(full);
  ASSERT_TRUE(full.try_charge(1_KiB));
  EXPECT_EQ(store.blank(), nullptr);
  full.release(1_KiB);
  os::fault::arm(os::call::map, 1, ENOMEM);
  EXPECT_EQ(store.blank(), nullptr);
  os::fault::disarm();
  EXPECT_EQ(full.used(), bytes{});
  depot::batch* blank = store.blank();
  ASSERT_NE(blank, nullptr);
  store.recycle(blank);
}

// Beside a model of it: a stack of batches and their counts.
TEST_F(DepotTest, LawsHoldAfterEachStep) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    depot store(budget);
    std::vector<std::pair<depot::batch*, std::size_t>> expected;
    std::vector<depot::batch*> blanks;
    for (int step = 0; step < 500; ++step) {
      const std::uint64_t what = random() % 8;
      if (what < 3) {
        const std::size_t count = 1 + random() % depot::batch_max;
        depot::batch* batch = filled(store, count);
        store.add(batch);
        expected.emplace_back(batch, count);
      } else if (what < 5 && !expected.empty()) {
        depot::batch* batch = store.take();
        ASSERT_EQ(batch, expected.back().first);
        ASSERT_EQ(batch->count, expected.back().second);
        for (std::size_t i = 0; i < batch->count; ++i) ASSERT_EQ(batch->objects[i], &batch->objects[i]);
        expected.pop_back();
        store.recycle(batch);
      } else if (what == 5) {
        blanks.push_back(store.blank());
      } else if (what == 6 && !blanks.empty()) {
        store.recycle(blanks.back());
        blanks.pop_back();
      } else {
        store.begin_period();
      }
      store.audit("test");
      ASSERT_EQ(store.batches(), expected.size());
      ASSERT_EQ(store.charged(), budget.used());
    }
    for (depot::batch* blank : blanks) store.recycle(blank);
    drain(store);
  }
  EXPECT_EQ(budget.used(), bytes{});
}

}  // namespace
}  // namespace larder::cache

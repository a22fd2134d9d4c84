// SPDX-License-Identifier: Apache-2.0
//
// The account of a budget by kind: exact for each kind of memory, and true of what the system says that the process
// takes.
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/handle_table.h>
#include <larder/memory_budget.h>
#include <larder/memory_resource.h>
#include <larder/object_cache.h>
#include <larder/page_cache.h>
#include <larder/raw_cache.h>

#include "base/sanitizers.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

raw_cache::options objects_of(std::size_t size, memory_budget& budget) {
  raw_cache::options chosen;
  chosen.size = size;
  chosen.budget = &budget;
  chosen.debug = debug_checks::none;
  return chosen;
}

void expect_exact(const memory_budget& budget, const char* when) {
  const memory_account now = budget.account();
  EXPECT_EQ(now.total(), budget.used()) << when;
}

TEST(AccountTest, ObjectsAreToldByWhereTheyAre) {
  memory_budget budget("objects", {.limit = 64_MiB});
  {
    raw_cache cache("account", objects_of(1024, budget));
    const auto each = bytes{1024};
    std::vector<void*> out;
    for (int i = 0; i < 100; ++i) out.push_back(*cache.get());
    memory_account now = budget.account();
    EXPECT_EQ(now.live_objects, each * 100);
    EXPECT_EQ(now.total(), budget.used());
    EXPECT_EQ(now.other, 0_B);
    EXPECT_EQ(now.empty_slabs, 0_B);
    EXPECT_GT(now.metadata, 0_B);
    for (int i = 0; i < 10; ++i) {
      cache.put(out.back());
      out.pop_back();
    }
    now = budget.account();
    const auto figures = cache.stats();
    EXPECT_EQ(now.live_objects, each * 90);
    EXPECT_EQ(now.magazines, each * (figures.objects_cached + figures.objects_in_depot));
    EXPECT_GE(now.magazines, each * 10);
    EXPECT_EQ(now.total(), budget.used());
    for (void* each_out : out) cache.put(each_out);
    (void)cache.trim(0_B);
    expect_exact(budget, "with all objects back");
    (void)budget.reclaim(unlimited);
    now = budget.account();
    EXPECT_EQ(now.live_objects + now.magazines + now.free_objects + now.empty_slabs, 0_B);
    EXPECT_EQ(now.total(), budget.used());
  }
  EXPECT_EQ(budget.account().total(), 0_B);
}

TEST(AccountTest, EmptySlabsAreToldApart) {
  memory_budget budget("objects", {.limit = 64_MiB});
  auto chosen = objects_of(1024, budget);
  chosen.reservation = 200;
  raw_cache cache("account", chosen);
  const auto figures = cache.stats();
  const memory_account now = budget.account();
  EXPECT_EQ(now.empty_slabs, figures.slab_bytes * figures.slabs_empty);
  EXPECT_GE(now.empty_slabs, bytes{1024} * 200);
  EXPECT_EQ(now.live_objects, 0_B);
  EXPECT_EQ(now.total(), budget.used());
}

TEST(AccountTest, HandlesPagesSpansAndWhatTheUserCharged) {
  memory_budget root("root", {.limit = 64_MiB});
  memory_budget budget("all", {}, &root);
  raw_handle_table table("account", {.limit = 10'000, .budget = &budget});
  int object = 0;
  std::vector<handle> handles;
  for (int i = 0; i < 5'000; ++i) handles.push_back(table.insert(&object));
  memory_account now = budget.account();
  EXPECT_EQ(now.handles, bytes{page_size} * table.stats().frames);
  EXPECT_GT(now.handles, 0_B);
  expect_exact(budget, "with handles");

  auto disk = *memory_backing::create(1_MiB);
  auto pages = *page_cache::create("account", {.budget = &budget, .guaranteed_pages = 16, .limit = 512_KiB});
  auto file = *pages->open(*disk);
  ASSERT_TRUE(file->read_ahead(0, 128_KiB));
  const std::vector<std::byte> data(20 * page_size, std::byte{1});
  ASSERT_TRUE(file->write(0, data));
  now = budget.account();
  EXPECT_EQ(now.dirty_pages, bytes{page_size} * 20);
  EXPECT_EQ(now.clean_pages, bytes{page_size} * (pages->stats().pages_owned - 20));
  expect_exact(budget, "with dirty pages");
  ASSERT_TRUE(file->flush());
  now = budget.account();
  EXPECT_EQ(now.dirty_pages, 0_B);
  EXPECT_EQ(now.clean_pages, bytes{page_size} * pages->stats().pages_owned);

  memory_resource resource("account", {.budget = &budget});
  void* span = resource.allocate(bytes{3_MiB}.count);
  now = budget.account();
  EXPECT_EQ(now.live_objects, 3_MiB);
  expect_exact(budget, "with a span");
  resource.deallocate(span, bytes{3_MiB}.count);

  ASSERT_TRUE(budget.try_charge(12'345_B));
  EXPECT_EQ(budget.account().other, 12'345_B);
  EXPECT_EQ(root.account().total(), root.used()) << "what is below counts above";
  EXPECT_EQ(root.account().handles, budget.account().handles);
  EXPECT_EQ(tests::stat_value("memory_budget/all", "other_bytes"), 12'345U);
  EXPECT_EQ(tests::stat_value("memory_budget/root", "handles_bytes"), now.handles.count);
  budget.release(12'345_B);
  for (const handle each : handles) table.erase(each);
}

// Guard pages are not charged, and by them a cache of stacks is known.
TEST(AccountTest, StacksAreAKindOfTheirOwn) {
  memory_budget budget("stacks", {.limit = 64_MiB});
  auto chosen = objects_of(64 * 1024, budget);
  chosen.alignment = page_size;
  chosen.uncharged_per_object = bytes{page_size};
  raw_cache cache("account stacks", chosen);
  void* stack = *cache.get();
  const memory_account now = budget.account();
  EXPECT_GE(now.stacks, bytes{60 * 1024});
  EXPECT_EQ(now.live_objects, 0_B);
  EXPECT_EQ(now.total(), budget.used());
  cache.put(stack);
}

#if !defined(LARDER_ADDRESS_SANITIZER) && !defined(LARDER_THREAD_SANITIZER)

// Resident bytes of all mappings of this process that are no file's: code and its data come as they are used.
bytes resident() {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool anonymous = false;
  bytes sum;
  while (std::getline(maps, line)) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (!first.empty() && first.back() != ':') {
      std::string permissions;
      std::string offset;
      std::string device;
      std::string inode;
      words >> permissions >> offset >> device >> inode;
      anonymous = inode == "0";
    } else if (anonymous && first == "Rss:") {
      std::uint64_t kilobytes = 0;
      words >> kilobytes;
      sum += bytes{kilobytes * 1024};
    }
  }
  return sum;
}

// KF-55: what the process takes is what is charged. Beyond that there may be a few small blocks of the C++ heap for
// each component (names, registrations), parkers, and what this test itself keeps: half a megabyte is far more than
// these.
TEST(AccountTest, SystemAgreesWithWhatIsCharged) {
  constexpr bytes tolerance = 512_KiB;
  memory_budget budget("all", {.limit = 256_MiB});
  std::vector<void*> out(20'000);
  std::vector<handle> handles(200'000);
  const bytes before = resident();
  {
    raw_cache cache("measured", objects_of(700, budget));
    for (void*& each : out) {
      each = *cache.get();
      std::memset(each, 1, 700);
    }
    raw_handle_table table("measured", {.limit = handles.size(), .budget = &budget});
    int object = 0;
    for (handle& each : handles) each = table.insert(&object);
    auto disk = *memory_backing::create(16_MiB, &budget);
    auto pages = *page_cache::create("measured", {.budget = &budget, .guaranteed_pages = 16, .limit = 8_MiB});
    auto file = *pages->open(*disk);
    const std::vector<std::byte> data(page_size, std::byte{1});
    for (std::uint64_t number = 0; number < 4096; ++number) ASSERT_TRUE(file->write(number * page_size, data));
    const bytes charged = budget.used();
    const bytes grown = resident() - before;
    EXPECT_LE(grown, charged + tolerance);
    EXPECT_GE(grown + charged / 10, charged) << "nor is much charged that is not there";
    EXPECT_EQ(budget.account().total(), charged);
    for (void* each : out) cache.put(each);
    for (const handle each : handles) table.erase(each);
    (void)budget.reclaim(unlimited);
    const bytes left = budget.used();
    EXPECT_LE(resident(), before + left + tolerance) << "what was released is with the system again";
    EXPECT_LE(left, 17_MiB) << "the disk, and little more";
  }
  EXPECT_LE(resident(), before + tolerance);
}

#endif

}  // namespace
}  // namespace larder

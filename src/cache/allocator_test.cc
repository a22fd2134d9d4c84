// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <deque>
#include <forward_list>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/allocator.h>

#include "tests/support/keeper_at_rest.h"

namespace larder {
namespace {

template <typename T>
using list_of = std::list<T, allocator<T>>;

class AllocatorTest : public testing::Test {
 protected:
  ~AllocatorTest() override {
    EXPECT_EQ(memory.stats().objects_out + memory.stats().spans_out, 0U);
    memory.audit();
  }
  std::uint64_t out() const { return memory.stats().objects_out; }

  const tests::keeper_at_rest at_rest;
  memory_budget budget{"test", {.limit = 8_MiB}};
  memory_resource memory{"test", {.budget = &budget}};
  memory_resource other{"other", {.budget = &budget}};
};

TEST_F(AllocatorTest, StandardContainersRunOnCaches) {
  list_of<std::uint64_t> list(1000, 7, memory);
  EXPECT_EQ(memory.cache_for(24, 8)->stats().objects_out, 1000U);

  std::map<int, int, std::less<>, allocator<std::pair<const int, int>>> map(memory);
  for (int i = 0; i < 1000; ++i) map[i] = i;
  EXPECT_EQ(out(), 2000U);
  EXPECT_EQ(memory.cache_for(40, 8)->stats().objects_out, 1000U);

  std::set<int, std::less<>, allocator<int>> set({1, 2, 3}, memory);
  EXPECT_EQ(out(), 2003U);
  std::forward_list<int, allocator<int>> forward(10, memory);
  EXPECT_EQ(out(), 2013U);

  std::unordered_map<int, int, std::hash<int>, std::equal_to<>, allocator<std::pair<const int, int>>> hashed(memory);
  for (int i = 0; i < 1000; ++i) hashed[i] = i;
  EXPECT_GE(out(), 3013U);

  const std::uint64_t before = out();
  std::vector<int, allocator<int>> vector(1000, 1, memory);
  EXPECT_EQ(out(), before + 1);
  vector.resize(100'000);
  EXPECT_EQ(memory.stats().spans_out, 1U);
  std::deque<int, allocator<int>> deque(5000, 1, memory);
  std::basic_string<char, std::char_traits<char>, allocator<char>> text(100, 'x', memory);
  EXPECT_GT(out(), before + 5000 * sizeof(int) / 512);
  EXPECT_EQ(map.at(999) + hashed.at(1), 1000);
}

TEST_F(AllocatorTest, WithoutAResourceItIsTheProcesses) {
  const std::uint64_t before = memory_resource::process().stats().objects_out;
  list_of<int> list(100);
  EXPECT_EQ(memory_resource::process().stats().objects_out, before + 100);
  EXPECT_EQ(&list.get_allocator().resource(), &memory_resource::process());
}

TEST_F(AllocatorTest, SharedObjectsAreOneAllocation) {
  const std::shared_ptr<std::string> text = std::allocate_shared<std::string>(allocator<std::string>(memory), "shared");
  EXPECT_EQ(out(), 1U);
  const std::weak_ptr<std::string> watched = text;
  EXPECT_EQ(*watched.lock(), "shared");
}

TEST_F(AllocatorTest, TypesAlignedBeyondTheUsualAre) {
  struct alignas(256) wide {
    char data[300];
  };
  struct alignas(4096) page {
    char data[1];
  };
  struct alignas(16384) beyond {
    char data[1];
  };
  list_of<wide> wides(20, memory);
  for (const wide& each : wides) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&each) % 256, 0U);
  std::vector<page, allocator<page>> pages(5, memory);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pages.data()) % 4096, 0U);
  EXPECT_EQ(out(), 21U);
  const std::shared_ptr<beyond> aligned = std::allocate_shared<beyond>(allocator<beyond>(memory));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned.get()) % 16384, 0U);
  EXPECT_EQ(memory.stats().spans_out, 1U);
}

// One at a time takes another way to the same class as several at once of the same length.
TEST_F(AllocatorTest, OneAndManyComeFromTheSameClasses) {
  allocator<std::array<char, 48>> large(memory);
  allocator<char> small(memory);
  auto* one = large.allocate(1);
  char* many = small.allocate(48);
  EXPECT_EQ(memory.stats().caches, 1U);
  EXPECT_EQ(out(), 2U);
  large.deallocate(one, 1);
  small.deallocate(many, 48);
}

TEST_F(AllocatorTest, MoreThanThereAreAddressesIsNoArray) {
  allocator<int> ints(memory);
  EXPECT_THROW((void)ints.allocate(std::numeric_limits<std::size_t>::max() / 2), std::bad_array_new_length);
  EXPECT_THROW((void)ints.allocate(std::numeric_limits<std::size_t>::max() / 8), std::bad_alloc);
}

TEST_F(AllocatorTest, AContainerThatDoesNotFitThrowsAndLeavesNothing) {
  memory_budget small("small", {.limit = 256_KiB}, &budget);
  memory_resource limited("limited", {.budget = &small});
  {
    list_of<std::uint64_t> list(limited);
    EXPECT_THROW(for (;;) list.push_back(1), std::bad_alloc);
    EXPECT_GT(list.size(), 5000U);
    EXPECT_THROW((std::vector<char, allocator<char>>(300'000, limited)), std::bad_alloc);
  }
  limited.trim();
  EXPECT_EQ(limited.stats().bytes_out, bytes{});
  EXPECT_EQ(limited.stats().charged, small.used());
}

TEST_F(AllocatorTest, ComparesByResource) {
  EXPECT_EQ(allocator<int>(memory), allocator<std::string>(memory));
  EXPECT_NE(allocator<int>(memory), allocator<int>(other));
  EXPECT_EQ(allocator<int>(), allocator<char>());
}

TEST_F(AllocatorTest, AMoveTakesTheResourceAlong) {
  list_of<int> from(10, 1, memory);
  const int* first = &from.front();
  list_of<int> to(3, 2, other);
  to = std::move(from);
  EXPECT_EQ(&to.front(), first);  // nothing was copied
  EXPECT_EQ(out(), 10U);
  EXPECT_EQ(other.stats().objects_out, 0U);
  EXPECT_EQ(&to.get_allocator().resource(), &memory);
  static_assert(std::is_nothrow_move_assignable_v<list_of<int>>);
}

TEST_F(AllocatorTest, ASwapExchangesTheResources) {
  list_of<int> one(10, 1, memory);
  list_of<int> two(3, 2, other);
  one.swap(two);
  EXPECT_EQ(one.size(), 3U);
  EXPECT_EQ(&one.get_allocator().resource(), &other);
  EXPECT_EQ(&two.get_allocator().resource(), &memory);
}

TEST_F(AllocatorTest, ACopyStaysInTheBudgetAndAnAssignmentInItsOwn) {
  const list_of<int> from(10, 1, memory);
  const list_of<int> copy(from);  // NOLINT(performance-unnecessary-copy-initialization)
  EXPECT_EQ(out(), 20U);
  list_of<int> assigned(3, 2, other);
  assigned = from;
  EXPECT_EQ(out(), 20U);
  EXPECT_EQ(other.stats().objects_out, 10U);
}

// As the standard asks of an allocator, and of containers of a type that is not complete yet.
struct tree {
  std::vector<tree, allocator<tree>> branches;
  list_of<tree> leaves;
};
static_assert(std::is_same_v<std::allocator_traits<allocator<int>>::rebind_alloc<char>, allocator<char>>);
static_assert(std::is_nothrow_default_constructible_v<allocator<int>>);
static_assert(std::is_nothrow_copy_constructible_v<allocator<int>>);
static_assert(std::is_nothrow_constructible_v<allocator<int>, allocator<char>>);
static_assert(!std::allocator_traits<allocator<int>>::is_always_equal::value);
static_assert(sizeof(allocator<int>) == sizeof(void*));

TEST_F(AllocatorTest, TypesThatHoldThemselvesWork) {
  tree root;
  root.branches.emplace_back();
  root.branches.front().leaves.emplace_back();
  EXPECT_EQ(root.branches.front().leaves.size(), 1U);
}

}  // namespace
}  // namespace larder

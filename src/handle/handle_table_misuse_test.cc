// SPDX-License-Identifier: Apache-2.0
//
// Threads that insert, shrink, and erase what either inserted, beside threads that use handles they have no right to:
// made up, out of range, of another table, erased long ago or just now, or somebody else's. Whatever comes of a handle
// is an object of this table that was inserted as just that handle, and a pinned one is not released. At the end each
// object was released once, and each misuse counted once.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/handle_table.h>

#include "base/atomic.h"

namespace larder {
namespace {

class misuse_stress {
 public:
  explicit misuse_stress(std::size_t limit)
      : limit_(limit),
        table_("misused", options_of(limit, &budget_)),
        other_("other", options_of(limit, &budget_)),
        aside_(std::make_unique<base::atomic<std::uint32_t>[]>(limit)),
        erased_(std::make_unique<base::atomic<std::uint32_t>[]>(erased_size)) {
    for (std::size_t i = 0; i < std::min<std::size_t>(limit, 100); ++i) {
      strangers_.emplace_back().stranger = true;
      foreign_.push_back(other_.insert(&strangers_.back()));
    }
  }

  void run() {
    std::vector<std::thread> owners;
    std::vector<std::thread> misusers;
    for (unsigned i = 0; i < owner_count; ++i) owners.emplace_back([this, i] { own(i); });
    for (unsigned i = 0; i < misuser_count; ++i) misusers.emplace_back([this, i] { misuse(i); });
    for (std::thread& each : owners) each.join();
    stop_ = true;
    for (std::thread& each : misusers) each.join();
    judge();
  }

 private:
  struct object {
    base::atomic<std::uint32_t> handle{0};  // once its inserter knows it
    base::atomic<std::uint32_t> releases{0};
    bool stranger = false;  // the other table's
  };

  static constexpr unsigned owner_count = 2;
  static constexpr unsigned misuser_count = 2;
  static constexpr unsigned calls_least = 10'000;
  static constexpr std::size_t erased_size = 256;

  static handle_table<object>::options options_of(std::size_t limit, memory_budget* budget) {
    handle_table<object>::options made{.limit = limit, .budget = budget};
    made.released = [](void*, void* released) { ++static_cast<object*>(released)->releases; };
    return made;
  }

  // Inserts each object once, in times of more inserts and times of more erases, and shrinks the table now and then.
  void own(unsigned number) {
    std::mt19937 random(number);
    std::vector<object>& mine = objects_[number];
    bool growing = true;
    for (std::size_t next = 0; next < mine.size();) {
      if (random() % 1000 == 0) growing = !growing;
      if (random() % 500 == 0) table_.shrink();
      if (random() % 50 == 0) std::this_thread::yield();  // to the misusers, where CPUs are few
      const handle made = random() % 4 < (growing ? 3 : 1) ? table_.insert(&mine[next]) : handle{};
      if (made) mine[next++].handle = made.value;
      // What is put aside is erased by the owner who puts another in its place.
      if (const std::uint32_t other = aside_[random() % limit_].exchange(made.value)) erase({other}, random());
    }
  }

  // Tells the misusers of a handle when it is about to go. One of them may erase it in the owner's place.
  void erase(handle which, std::size_t slot) {
    erased_[slot % erased_size] = which.value;
    if (!table_.erase(which)) ++refused_erases_;
  }

  void misuse(unsigned number) {
    std::mt19937 random(100 + number);
    std::uint64_t misses = 0;
    for (unsigned calls = 0; !stop_ || calls < calls_least; ++calls) {
      const handle wrong = some_handle(random);
      if (!wrong) continue;  // "none" is no misuse
      switch (random() % 8) {
        case 0:
          if (table_.erase(wrong)) {
            ++usurped_erases_;
          } else {
            ++misses;
          }
          break;
        case 1:
        case 2:
        case 3:
          misses += pin(wrong) ? 0U : 1U;
          break;
        default:
          misses += look(wrong, table_.find(wrong)) ? 0U : 1U;
      }
    }
    misses_ += misses;
  }

  handle some_handle(std::mt19937& random) const {
    const auto any = static_cast<std::uint32_t>(random());
    if (random() % 16 == 0) return {aside_[any % limit_].load()};  // live, but somebody else's
    switch (random() % 4) {
      case 0:
        return {any};
      case 1:
        return {any | static_cast<std::uint32_t>(std::bit_ceil(limit_) - 1)};  // the last index: out of range or not
      case 2:
        return foreign_[any % foreign_.size()];
      default:
        return {erased_[any % erased_size].load()};
    }
  }

  // Whether something came of the handle; that is one of this table's objects then.
  bool look(handle with, const object* found) {
    if (found == nullptr) return false;
    const std::uint32_t inserted_as = found->handle;  // 0: its inserter has not noted it yet
    if (found->stranger || (inserted_as != 0 && inserted_as != with.value)) ++foreign_objects_;
    return true;
  }

  bool pin(handle with) {
    const pinned<object> held = table_.find_pinned(with);
    if (!look(with, held.get())) return false;
    std::this_thread::yield();
    if (held->releases != 0) ++early_releases_;
    return true;
  }

  void judge() {
    for (std::size_t i = 0; i < limit_; ++i) {
      if (const std::uint32_t left = aside_[i]) erase({left}, i);
    }
    EXPECT_EQ(foreign_objects_, 0U);
    EXPECT_EQ(early_releases_, 0U);
    EXPECT_EQ(refused_erases_, usurped_erases_);
    for (const std::vector<object>& owned : objects_) {
      for (const object& each : owned) ASSERT_EQ(each.releases, 1U);
    }
    for (const object& each : strangers_) EXPECT_EQ(each.releases, 0U);
    const auto now = table_.stats();
    EXPECT_EQ(now.stale + now.forged, misses_ + refused_erases_);
    EXPECT_GT(now.stale, 0U);
    EXPECT_GT(now.forged, 0U);
    EXPECT_EQ(now.inserts, owner_count * objects_per_owner_);
    EXPECT_EQ(now.erases, now.inserts);
    EXPECT_EQ(table_.size(), 0U);
    table_.audit();
    other_.audit();
    (void)table_.shrink();
    EXPECT_EQ(table_.stats().frames, 0U);
  }

  const std::size_t limit_;
  memory_budget budget_{"misuse"};
  const std::size_t objects_per_owner_ =
      std::min<std::size_t>(2000 * limit_, 40'000);  // inserts into one entry are rare
  std::vector<object> objects_[owner_count] = {std::vector<object>(objects_per_owner_),
                                               std::vector<object>(objects_per_owner_)};
  std::deque<object> strangers_;
  handle_table<object> table_;
  handle_table<object> other_;
  std::vector<handle> foreign_;
  const std::unique_ptr<base::atomic<std::uint32_t>[]> aside_;   // live handles, and zeros
  const std::unique_ptr<base::atomic<std::uint32_t>[]> erased_;  // some of the handles that were

  base::atomic<bool> stop_{false};
  base::atomic<std::uint64_t> misses_{0};
  base::atomic<std::uint64_t> usurped_erases_{0};
  base::atomic<std::uint64_t> refused_erases_{0};
  base::atomic<std::uint64_t> foreign_objects_{0};
  base::atomic<std::uint64_t> early_releases_{0};
};

// KF-21, KF-27, KF-28: limits of one entry, of less than a frame, and of some frames that come and go.
TEST(HandleTableMisuseTest, WrongHandlesBesideInsertEraseAndShrinkFindNothingForeignAndAreCounted) {
  for (const std::size_t limit : {1U, 200U, 3000U}) {
    SCOPED_TRACE(testing::Message() << "limit " << limit);
    misuse_stress(limit).run();
  }
}

}  // namespace
}  // namespace larder

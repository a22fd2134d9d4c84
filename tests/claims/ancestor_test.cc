// SPDX-License-Identifier: Apache-2.0
//
// What was claimed of the NetBSD rump kernel's page daemon, and what its author left to luck, as tests: a thousand who
// each work with a page pinned and ask for one more, in 600 KiB; one file that owns every page and is locked by who
// needs another (KF-51); charges that do not wait, and charges that do. The walk of a large file system in 600 KiB is
// tests/clients/ext4_many_files_test.py.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/handle_table.h>
#include <larder/object_cache.h>
#include <larder/page_cache.h>
#include <larder/runtime.h>
#include <larder/sync.h>

#include "base/sanitizers.h"
#include "tests/support/eventually.h"
#include "tests/support/run_on_all.h"

namespace larder {
namespace {

constexpr bytes ancestors_limit = bytes{600U << 10};
constexpr int crowd = 1000 / tests::share;

class AncestorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = page_cache::create("pages", {.budget = &budget_, .guaranteed_pages = 8});
    ASSERT_TRUE(made) << made.error().message();
    cache_ = *std::move(made);
  }
  void TearDown() override {
    cache_->audit();
    budget_.audit();
    cache_.reset();
    EXPECT_EQ(budget_.used(), bytes{0});
    EXPECT_LE(budget_.peak(), budget_.limit());
  }

  // Room for `pages`, charged to nobody: it stands for the disk.
  void make_file(std::uint64_t pages) {
    auto made = memory_backing::create(bytes{pages * page_size});
    ASSERT_TRUE(made) << made.error().message();
    disk_ = *std::move(made);
    auto opened = cache_->open(*disk_);
    ASSERT_TRUE(opened) << opened.error().message();
    file_ = *std::move(opened);
  }
  void close_file() {
    EXPECT_TRUE(file_->flush());
    file_.reset();
  }

  // Adds one to the number at the start of a pinned page.
  static void count_in(page_ref& page) {
    std::uint64_t count = 0;
    std::memcpy(&count, page.data().data(), sizeof count);
    ++count;
    std::memcpy(page.data().data(), &count, sizeof count);
    page.mark_dirty();
  }
  std::uint64_t count_of(std::uint64_t page_number) {
    std::uint64_t count = 0;
    EXPECT_TRUE(file_->read(page_number * page_size, std::as_writable_bytes(std::span(&count, 1))));
    return count;
  }

  memory_budget budget_{"budget", {.limit = ancestors_limit}};
  std::unique_ptr<memory_backing> disk_;
  std::unique_ptr<page_cache> cache_;
  std::unique_ptr<cached_file> file_;
};

// Many who do the same. Time is what all of them together have done so far: how long one took is how much the others
// did meanwhile, which no machine's load changes.
class crowd_clock {
 public:
  explicit crowd_clock(int members) : spans_(static_cast<std::size_t>(members)) {}
  std::uint64_t now() const { return rounds_; }
  void tick() { ++rounds_; }
  void finished(int member, std::uint64_t began) { spans_[static_cast<std::size_t>(member)] = rounds_ - began; }
  std::uint64_t mean() const {
    std::uint64_t sum = 0;
    for (const std::uint64_t each : spans_) sum += each;
    return sum / spans_.size();
  }
  std::uint64_t slowest() const { return *std::ranges::max_element(spans_); }

 private:
  std::atomic<std::uint64_t> rounds_{0};
  std::vector<std::uint64_t> spans_;
};

class AncestorCrowdTest : public AncestorTest {
 protected:
  static constexpr int rounds = 20;

  // Works with one page pinned and asks for another, a page and its neighbour of one's own.
  void take_part(int member) {
    const std::uint64_t began = clock_.now();
    for (int round = 0; round < rounds; ++round) {
      auto admission = cache_->admit(2, 2);
      ASSERT_TRUE(admission) << admission.error().message();
      const std::uint64_t first = 2 * static_cast<std::uint64_t>(member);
      auto held = file_->pin(first, access::modify, *admission);
      ASSERT_TRUE(held) << held.error().message();
      count_in(*held);
      do {
        pass_the_turn();
      } while (cache_->stats().admission_waits == 0);  // until they are so many that the memory is short
      auto another = file_->pin(first + 1, access::modify, *admission);
      ASSERT_TRUE(another) << another.error().message();
      count_in(*another);
      clock_.tick();
    }
    clock_.finished(member, began);
  }

  void check() {
    for (std::uint64_t page = 0; page < 2 * crowd; ++page) EXPECT_EQ(count_of(page), rounds);
    EXPECT_LE(clock_.slowest(), 20 * clock_.mean());
    RecordProperty("slowest", std::to_string(clock_.slowest()));
    RecordProperty("mean", std::to_string(clock_.mean()));
    const page_cache_stats figures = cache_->stats();
    EXPECT_GT(figures.evictions, 0U);
    EXPECT_GT(figures.pages_written, 0U);
  }

  void pass_the_turn() {
    if (tasks_) {
      this_task::yield();
    } else {
      std::this_thread::yield();
    }
  }

  crowd_clock clock_{crowd};
  bool tasks_ = false;
};

TEST_F(AncestorCrowdTest, AThousandTasksEachHoldAPageAndAskForAnother) {
  tasks_ = true;
  make_file(2 * crowd);
  memory_budget stacks("stacks");
  {
    auto started = runtime::create("crowd", {.workers = 2, .stack_size = bytes{64U << 10}, .budget = &stacks});
    ASSERT_TRUE(started) << started.error().message();
    tests::run_on_all(**started, crowd, 0, [this](int member) { take_part(member); });
  }
  check();
  close_file();
}

TEST_F(AncestorCrowdTest, AThousandThreadsEachHoldAPageAndAskForAnother) {
  make_file(2 * crowd);
  std::vector<std::thread> threads;
  for (int member = 0; member < crowd; ++member) {
    threads.emplace_back([this, member] { take_part(member); });
  }
  for (std::thread& each : threads) each.join();
  check();
  close_file();
}

// KF-51: every page that there may be is one file's and dirty, its lock is held by who needs one more, and the others
// wait for the lock. The lock says nothing to write-back, so the pages can leave.
TEST_F(AncestorTest, OneFileOwnsEveryPageAndItsLockIsHeldByWhoNeedsAnother) {
  make_file(1000);
  mutex lock;
  std::atomic<std::uint64_t> changed{0};
  std::optional<std::uint64_t> owned_at_most;
  std::vector<std::thread> threads;
  for (std::uint64_t member = 0; member < 4; ++member) {
    threads.emplace_back([&, member] {
      const std::unique_lock<mutex> locked(lock);
      for (std::uint64_t number = member; number < 1000; number += 4) {
        auto admission = cache_->admit(1, 1);
        ASSERT_TRUE(admission);
        auto page = file_->pin(number, access::modify, *admission);
        ASSERT_TRUE(page) << page.error().message();
        count_in(*page);
        ++changed;
      }
      owned_at_most = std::max(owned_at_most.value_or(0), std::uint64_t{cache_->stats().pages_owned});
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(changed, 1000U);
  EXPECT_LT(owned_at_most, 150U);  // so most had to leave while the lock was held
  for (std::uint64_t page = 0; page < 1000; ++page) EXPECT_EQ(count_of(page), 1U);
  close_file();
}

// The same where all pages are not only owned but pinned: who needs one more waits before it holds any, and gets it
// once one is given back.
TEST_F(AncestorTest, WhoHoldsEveryPageKeepsOthersWaitingUntilItGivesOneBack) {
  make_file(1000);
  std::deque<pin_admission> admissions;
  std::vector<page_ref> held;
  // A frame that the page daemon is just giving back is waited for.
  const auto soon = [] { return std::chrono::steady_clock::now() + std::chrono::milliseconds(100); };
  while (auto some = cache_->admit(1, 1000, soon())) {
    pin_admission& admission = admissions.emplace_back(*std::move(some));
    while (admission.available() > 0) {
      auto page = file_->pin(held.size(), access::modify, admission);
      ASSERT_TRUE(page) << page.error().message();
      count_in(*page);
      held.push_back(*std::move(page));
    }
  }
  EXPECT_GT(held.size(), 100U);
  const std::uint64_t waits = cache_->stats().admission_waits;
  std::atomic<bool> admitted{false};
  std::thread another([&] {
    auto one = cache_->admit(1, 1);
    ASSERT_TRUE(one) << one.error().message();
    admitted = true;
    auto page = file_->pin(999, access::modify, *one);
    ASSERT_TRUE(page) << page.error().message();
    count_in(*page);
  });
  EXPECT_TRUE(tests::eventually([&] { return cache_->stats().admission_waits == waits + 1; }));
  EXPECT_FALSE(admitted);
  held.pop_back();
  admissions.back().reduce(admissions.back().pages() - 1);
  another.join();
  EXPECT_TRUE(admitted);
  held.clear();
  admissions.clear();
  EXPECT_EQ(count_of(999), 1U);
  close_file();
}

// Who does not wait is turned away below the limit, where the reclaimers' reserve begins; who waits sleeps until
// another releases.
TEST(AncestorChargeTest, NoWaitFailsBeforeTheLimitAndWaitSleepsUntilAnotherReleases) {
  memory_budget budget("budget", {.limit = bytes{600U << 10}, .reserve = bytes{60U << 10}});
  std::uint64_t kibibytes = 0;
  while (budget.try_charge(bytes{1024})) ++kibibytes;
  EXPECT_EQ(kibibytes, 540U);
  EXPECT_LT(budget.used(), budget.limit());
  std::atomic<bool> charged{false};
  std::thread waiter([&] {
    ASSERT_TRUE(budget.charge(bytes{1024}));
    charged = true;
  });
  EXPECT_TRUE(tests::eventually([&] { return budget.waits() == 1; }));
  EXPECT_FALSE(charged);
  EXPECT_FALSE(budget.try_charge(bytes{1}));  // nor does it overtake
  budget.release(bytes{1024});
  waiter.join();
  EXPECT_TRUE(charged);
  budget.release(bytes{kibibytes << 10});
}

// Objects, handles, coroutines with their stacks, pages and bare charges, all under one limit that is a good deal less
// than they would take: at every one of a million instants at which it is looked at, the limit holds.
TEST_F(AncestorTest, UsedIsWithinTheLimitAtAMillionInstants) {
  constexpr std::uint64_t samples_wanted = 1'000'000 / tests::share;
  make_file(1000);
  std::uint64_t samples = 0;
  std::uint64_t beyond = 0;
  {
    object_cache<std::array<char, 500>> objects("objects", {.budget = &budget_});
    handle_table<int> handles("handles", {.budget = &budget_});
    int named = 0;
    std::vector<std::thread> threads;
    std::atomic<bool> sampled{false};
    const auto until_sampled = [&sampled](auto step) {
      for (std::uint64_t round = 0; !sampled; ++round) step(round);
    };
    threads.emplace_back([&] {
      std::vector<std::array<char, 500>*> out;
      until_sampled([&](std::uint64_t round) {
        if (auto* object = round % 600 < 300 ? objects.try_get() : nullptr; object != nullptr) {
          out.push_back(object);
        } else if (!out.empty()) {
          objects.put(out.back());
          out.pop_back();
        }
      });
      for (auto* each : out) objects.put(each);
    });
    threads.emplace_back([&] {
      std::vector<handle> out;
      until_sampled([&](std::uint64_t round) {
        if (const handle made = round % 20'000 < 10'000 ? handles.insert(&named) : handle{}; made != handle{}) {
          out.push_back(made);
        } else if (!out.empty()) {
          EXPECT_TRUE(handles.erase(out.back()));
          out.pop_back();
        }
      });
      for (const handle each : out) EXPECT_TRUE(handles.erase(each));
    });
    for (std::uint64_t member = 0; member < 2; ++member) {
      threads.emplace_back([&, member] {
        until_sampled([&](std::uint64_t round) {
          auto admission = cache_->admit(1, 1);
          ASSERT_TRUE(admission);
          auto page = file_->pin((round * 7919 + member) % 500 * 2 + member, access::modify, *admission);
          ASSERT_TRUE(page) << page.error().message();
          count_in(*page);
        });
      });
    }
    threads.emplace_back([&] {
      until_sampled([&](std::uint64_t round) {
        // Now and then more than there may be while the others have theirs, so that it is short however fast they are.
        const bytes amount = round % 64 == 63 ? bytes{500U << 10} : bytes{4000 + round * 7919 % 9000};
        if (!budget_.charge(amount, std::chrono::steady_clock::now() + std::chrono::milliseconds(1))) return;
        std::this_thread::yield();
        budget_.release(amount);
      });
    });
    // And until it has been short for a while.
    while (samples < samples_wanted || (budget_.waits() < 20 && samples < 1000 * samples_wanted)) {
      if (budget_.used() > budget_.limit()) ++beyond;
      ++samples;
    }
    sampled = true;
    for (std::thread& each : threads) each.join();
  }
  EXPECT_EQ(beyond, 0U);
  EXPECT_GE(budget_.waits(), 20U);
  close_file();
}

}  // namespace
}  // namespace larder

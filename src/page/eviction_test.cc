// SPDX-License-Identifier: Apache-2.0
//
// Each policy against a plain model of it: the same pages must leave in the same order, whatever is inserted, hit,
// dropped, or cannot be evicted for a while.
#include "page/eviction.h"

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "page/cache_core.h"
#include "page/ghost_table.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

using page_number = std::uint64_t;

class policy_model {
 public:
  virtual ~policy_model() = default;
  virtual void insert(page_number page) = 0;
  virtual void hit(page_number page) = 0;
  virtual void drop(page_number page) = 0;
  // Which page leaves, of those that are not held; there is one.
  virtual page_number evict(const std::set<page_number>& held) = 0;
};

class sieve_model final : public policy_model {
 public:
  void insert(page_number page) override { pages_.push_front({page, false}); }
  void hit(page_number page) override { find(page)->visited = true; }
  void drop(page_number page) override {
    const auto at = find(page);
    if (hand_ == at) hand_ = newer(at);
    pages_.erase(at);
  }
  page_number evict(const std::set<page_number>& held) override {
    for (;;) {
      if (hand_ == pages_.end()) hand_ = std::prev(pages_.end());
      const auto at = hand_;
      hand_ = newer(at);
      if (!std::exchange(at->visited, false) && held.count(at->page) == 0) {
        const page_number victim = at->page;
        pages_.erase(at);
        return victim;
      }
    }
  }

 private:
  struct one {
    page_number page;
    bool visited;
  };
  std::list<one>::iterator find(page_number page) {
    return std::find_if(pages_.begin(), pages_.end(), [&](const one& each) { return each.page == page; });
  }
  std::list<one>::iterator newer(std::list<one>::iterator at) {
    return at == pages_.begin() ? pages_.end() : std::prev(at);
  }
  std::list<one> pages_;  // newest first
  std::list<one>::iterator hand_ = pages_.end();
};

class clock_model final : public policy_model {
 public:
  void insert(page_number page) override { ring_.push_back({page, false}); }
  void hit(page_number page) override { find(page)->second = true; }
  void drop(page_number page) override { ring_.erase(find(page)); }
  page_number evict(const std::set<page_number>& held) override {
    for (;;) {
      const auto [page, visited] = ring_.front();
      ring_.pop_front();
      if (!visited && held.count(page) == 0) return page;
      ring_.emplace_back(page, false);
    }
  }

 private:
  std::list<std::pair<page_number, bool>>::iterator find(page_number page) {
    return std::find_if(ring_.begin(), ring_.end(), [&](const auto& each) { return each.first == page; });
  }
  std::list<std::pair<page_number, bool>> ring_;  // from where the hand is
};

class lru_model final : public policy_model {
 public:
  void insert(page_number page) override { pages_.push_back(page); }
  void hit(page_number page) override {
    pages_.remove(page);
    pages_.push_back(page);
  }
  void drop(page_number page) override { pages_.remove(page); }
  page_number evict(const std::set<page_number>& held) override {
    const auto at = std::find_if(pages_.begin(), pages_.end(), [&](page_number each) { return held.count(each) == 0; });
    const page_number victim = *at;
    pages_.erase(at);
    return victim;
  }

 private:
  std::list<page_number> pages_;  // the least recently used first
};

class s3_fifo_model final : public policy_model {
 public:
  // What the ghosts do is seen in GhostTableTest.
  s3_fifo_model(const frame_arena& arena, std::uint64_t salt) : ghosts_(arena), salt_(salt) {}
  void insert(page_number page) override {
    const bool small_is_full = small_.size() * 10 >= small_.size() + main_.size() + 1;
    (ghosts_.take(salt_ + page) || small_is_full ? main_ : small_).push_back({page, 0});
  }
  void hit(page_number page) override {
    for (std::list<one>* queue : {&small_, &main_}) {
      for (one& each : *queue) {
        if (each.page == page) ++each.hits;
      }
    }
  }
  void drop(page_number page) override {
    const auto is_it = [page](const one& each) { return each.page == page; };
    if (hand_ != main_.end() && is_it(*hand_)) ++hand_;
    small_.remove_if(is_it);
    main_.remove_if(is_it);
  }
  page_number evict(const std::set<page_number>& held) override {
    auto small = small_.begin();
    for (std::size_t main_looks = 2 * main_.size();;) {
      const std::size_t size = small_.size() + main_.size();
      if (small != small_.end() && (small_.size() * 10 >= size || main_looks == 0)) {
        const auto at = small++;
        if (at->hits > 1) {
          main_.push_back({at->page, 0});
          small_.erase(at);
        } else if (held.count(at->page) == 0) {
          ghosts_.remember(salt_ + at->page, static_cast<std::uint32_t>(size - size / 10));
          return erased(small_, at);
        }
        continue;
      }
      if (main_looks == 0) main_looks = 2 * main_.size();
      --main_looks;
      if (hand_ == main_.end()) hand_ = main_.begin();
      const auto at = hand_++;
      if (std::exchange(at->hits, 0) == 0 && held.count(at->page) == 0) return erased(main_, at);
    }
  }

 private:
  struct one {
    page_number page;
    int hits;
  };
  static page_number erased(std::list<one>& queue, std::list<one>::iterator at) {
    const page_number victim = at->page;
    queue.erase(at);
    return victim;
  }
  std::list<one> small_;  // the oldest first, as in the others
  std::list<one> main_;
  std::list<one>::iterator hand_ = main_.end();
  ghost_table ghosts_;
  const std::uint64_t salt_;
};

// An arena of which every frame was used.
void reserve_and_use(frame_arena& arena, std::uint32_t frames) {
  ASSERT_TRUE(arena.reserve(frames, 12));
  std::vector<frame*> all;
  for (std::uint32_t i = 0; i < frames; ++i) all.push_back(&arena.take());
  for (frame* each : all) arena.give_back(*each);
}

std::unique_ptr<policy_model> model_of(eviction_policy policy, const frame_arena& arena, std::uint64_t salt) {
  switch (policy) {
    case eviction_policy::sieve:
      return std::make_unique<sieve_model>();
    case eviction_policy::clock:
      return std::make_unique<clock_model>();
    case eviction_policy::lru:
      return std::make_unique<lru_model>();
    case eviction_policy::s3_fifo:
      return std::make_unique<s3_fifo_model>(arena, salt);
  }
  return nullptr;
}

class EvictionTest : public ::testing::TestWithParam<eviction_policy> {
 protected:
  static constexpr std::uint32_t frames = 48;

  EvictionTest() {
    reserve_and_use(arena_, frames);
    reserve_and_use(models_arena_, frames);
    queue_ = *eviction::create(GetParam(), arena_);
    core_ = *cache_core::create("test", {.budget = &budget_, .guaranteed_pages = 1});
    owner_ = std::make_unique<file>(*core_, disk_, 12, 1);
  }

  void insert(page_number number) {
    frame& taken = arena_.take();
    taken.state.store(0);
    taken.number.store(number);
    taken.owner.store(owner_.get());
    present_[number] = &taken;
    queue_->insert(taken);
  }
  // As cache_core does it.
  void hit(page_number number) {
    frame& at = *present_.at(number);
    if (queue_->told_of_hits()) queue_->hit(at);
    const state_word lowest = queue_->marks() & ~(queue_->marks() - 1);
    at.state.fetch_or((((at.state.load() & queue_->marks()) << 1) | lowest) & queue_->marks());
  }
  void leave(page_number number, departure why) {
    frame& at = *present_.at(number);
    queue_->remove(at, why);
    present_.erase(number);
    arena_.give_back(at);
  }
  // The page that the policy gives first, of those not held.
  page_number evict(const std::set<page_number>& held) {
    queue_->begin();
    for (std::uint64_t steps = queue_->steps_max(); steps > 0; --steps) {
      frame* at = queue_->advance();
      if (at == nullptr || held.count(at->number.load()) != 0) continue;
      const page_number victim = at->number.load();
      leave(victim, departure::evicted);
      return victim;
    }
    return none;
  }

  static constexpr page_number none = ~page_number{0};
  memory_budget budget_{"test", {.limit = 1_MiB}};
  std::unique_ptr<cache_core> core_;
  test_disk disk_{page_size};
  frame_arena arena_;
  frame_arena models_arena_;
  std::unique_ptr<eviction> queue_;
  std::unique_ptr<file> owner_;  // whose pages they are said to be
  std::map<page_number, frame*> present_;
};

TEST_P(EvictionTest, PagesLeaveInTheOrderOfTheModel) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    const auto model = model_of(GetParam(), models_arena_, owner_->salt);
    const auto below = [&](std::uint64_t end) { return random() % end; };
    std::set<page_number> held;
    queue_ = *eviction::create(GetParam(), arena_);
    for (int step = 0; step < 5000; ++step) {
      // Half of the pages asked for are of a few, so that there are hits, ghosts and scans.
      const page_number wanted = below(2) == 0 ? below(20) : below(200);
      const auto any = [&] { return std::next(present_.begin(), static_cast<long>(below(present_.size())))->first; };
      if (below(40) == 0 && !present_.empty()) {
        const page_number dropped = any();
        held.erase(dropped);
        leave(dropped, departure::dropped);
        model->drop(dropped);
      } else if (below(10) == 0) {
        held.clear();
        for (std::uint64_t i = below(4); i > 0 && !present_.empty(); --i) held.insert(any());
      } else if (present_.count(wanted) != 0) {
        hit(wanted);
        model->hit(wanted);
      } else {
        if (present_.size() == frames) {
          const page_number expected = model->evict(held);
          ASSERT_EQ(evict(held), expected) << "seed " << seed << ", step " << step;
        }
        insert(wanted);
        model->insert(wanted);
      }
      ASSERT_EQ(queue_->size(), present_.size());
    }
    while (!present_.empty()) {
      ASSERT_EQ(evict({}), model->evict({}));
    }
  }
}

// KF-45: however often the reclaimer looks, who was not hit leaves before who was.
TEST_P(EvictionTest, LookingIsNotVisiting) {
  for (page_number number = 0; number < 4; ++number) insert(number);
  for (int round = 0; round < 10; ++round) {
    queue_->begin();
    for (std::uint64_t step = 0; step < queue_->size(); ++step) EXPECT_NE(queue_->advance(), nullptr);
  }
  for (const auto& [number, at] : present_) EXPECT_EQ(at->state.load() & queue_->marks(), 0U);
  for (int times = 0; times < 3; ++times) hit(2);
  for (int others = 0; others < 3; ++others) EXPECT_NE(evict({}), 2U);
  EXPECT_EQ(evict({}), 2U);
  EXPECT_EQ(evict({}), none);
}

// The search's bound is enough to find the one page that may go, though all have all marks.
TEST_P(EvictionTest, OnePageThatMayGoIsFound) {
  std::set<page_number> held;
  for (page_number number = 0; number < frames; ++number) {
    insert(number);
    held.insert(number);
  }
  held.erase(17);
  for (int rounds = 0; rounds < 2; ++rounds) {
    for (int times = 0; times < 5; ++times) {
      for (page_number number = 0; number < frames; ++number) hit(number);
    }
    EXPECT_EQ(evict(held), 17U);
    insert(17);
  }
  while (!present_.empty()) {
    ASSERT_NE(evict({}), none);
  }
}

// What a policy here is for: a hot set stays while a scan of many pages passes.
TEST_P(EvictionTest, ScanDrivesTheHotSetOutUnderLruOnly) {
  const auto access = [&](page_number number) {
    const bool there = present_.count(number) != 0;
    if (there) {
      hit(number);
    } else {
      if (present_.size() == frames) (void)evict({});
      insert(number);
    }
    return there;
  };
  const auto hot_hits = [&] {
    int hits = 0;
    for (page_number hot = 0; hot < 24; ++hot) hits += access(hot) ? 1 : 0;
    return hits;
  };
  page_number scanned = 1000;
  for (int rounds = 0; rounds < 20; ++rounds) {
    (void)hot_hits();
    for (int i = 0; i < 8; ++i) access(scanned++);
  }
  (void)hot_hits();
  for (int i = 0; i < 60; ++i) access(scanned++);  // more than there are frames
  const int left = hot_hits();
  if (GetParam() == eviction_policy::sieve || GetParam() == eviction_policy::s3_fifo) {
    EXPECT_GE(left, 20);
  } else if (GetParam() == eviction_policy::lru) {
    EXPECT_EQ(left, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, EvictionTest, ::testing::ValuesIn(eviction_policies), policy_in_name());

TEST(GhostTableTest, RemembersTheLastKeys) {
  frame_arena arena;
  reserve_and_use(arena, 64);
  ghost_table ghosts(arena);
  for (std::uint64_t key = 1; key <= 6; ++key) ghosts.remember(key, 4);
  EXPECT_FALSE(ghosts.take(1));
  EXPECT_FALSE(ghosts.take(99));
  EXPECT_TRUE(ghosts.take(4));
  EXPECT_FALSE(ghosts.take(4));
  ghosts.remember(7, 1);
  EXPECT_TRUE(ghosts.take(7));
  EXPECT_FALSE(ghosts.take(3));
  ghosts.remember(8, 0);
  EXPECT_FALSE(ghosts.take(8));
}

// Against an exact list: what it remembers too long, not at all, or without having seen it.
TEST(GhostTableTest, ForgetsFewBeforeTheirTimeAndTakesFewForOthers) {
  for (const std::uint32_t frames : {1'000U, 60'000U}) {
    frame_arena arena;
    reserve_and_use(arena, frames);
    ghost_table ghosts(arena);
    const std::uint32_t keys = frames - frames / 10;
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> came;
    // Longer than ages are told apart, so that they begin anew.
    for (std::uint64_t i = 0; i < (std::uint64_t{1} << 17) * ghosts.unit(); ++i) {
      came.push_back(i * 3 + random() % 3);
      ghosts.remember(came.back(), keys);
    }
    std::uint32_t lost = 0;
    std::uint32_t kept_too_long = 0;
    std::uint32_t mistaken = 0;
    for (std::uint64_t i = keys + ghosts.unit() + 1; i < came.size(); ++i) {
      kept_too_long += ghosts.take(came[came.size() - 1 - i]) ? 1U : 0U;
    }
    for (std::uint64_t i = 0; i < 1'000'000; ++i) mistaken += ghosts.take(~i) ? 1U : 0U;
    for (std::uint32_t i = 0; i < keys; ++i) lost += ghosts.take(came[came.size() - 1 - i]) ? 0U : 1U;
    EXPECT_LE(lost, keys / 16);
    EXPECT_LE(kept_too_long, came.size() / 10'000 + 1);
    EXPECT_LE(mistaken, 1'000'000U / 10'000);
  }
}

// While frames are added, most keys stay where they are found.
TEST(GhostTableTest, RemembersWhileTheCacheGrows) {
  frame_arena arena;
  ASSERT_TRUE(arena.reserve(1000, 12));
  for (int i = 0; i < 880; ++i) arena.take();
  ghost_table ghosts(arena);
  for (std::uint64_t key = 0; key < 500; ++key) ghosts.remember(key, 800);
  for (int i = 0; i < 15; ++i) arena.take();
  std::uint32_t found = 0;
  for (std::uint64_t key = 0; key < 500; ++key) found += ghosts.take(key) ? 1U : 0U;
  EXPECT_GE(found, 490U);
}

TEST(EvictionPolicyTest, NamesAreReadAndWritten) {
  for (const eviction_policy each : eviction_policies) EXPECT_EQ(*eviction_policy_from(name_of(each)), each);
  EXPECT_EQ(name_of(eviction_policy::s3_fifo), "s3-fifo");
  EXPECT_EQ(eviction_policy_from("fifo").error(), error_from(EINVAL));
  EXPECT_EQ(eviction_policy_from("").error(), error_from(EINVAL));
}

}  // namespace
}  // namespace larder::page

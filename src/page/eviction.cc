// SPDX-License-Identifier: Apache-2.0
//
// The four policies.
//
// SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi, NSDI 2024). A queue, newest first, and a hand that moves from the oldest
// towards the newest and round again. A page visited since the hand last came by loses its mark and stays where it is;
// one that was not is the next to go. Unlike in LRU a hit moves nothing; unlike in CLOCK a page that stays does not
// become new, so pages seen once, as by a scan, leave soon.
//
// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023). New pages enter a small queue, a tenth of all. At its end, one
// that was hit more than once moves to the main queue, and another leaves and only its key is remembered, as a ghost:
// who comes back while that lasts enters the main queue at once. There a page that was hit goes round again, as often
// as it was hit, three times at most.
//
// CLOCK. A ring and a hand; a page that was visited loses its mark and is passed.
//
// LRU. A list in the order of last use, exact: each hit takes the mutex and moves its page to the front.
//
// All are O(1), but for marks that a search clears, each set by a hit, and for pages it is given and cannot evict:
// S3-FIFO and LRU meet those again in each search, for their place in the order is not to change by being looked at.
#include "page/eviction.h"

#include <algorithm>
#include <array>
#include <utility>

#include "page/file.h"
#include "page/ghost_table.h"
#include "page/page_queue.h"

namespace larder::page {
namespace {

// Relaxed, here and where marks are set: they publish nothing.
bool has_any(const frame& page, state_word marks) { return (page.state.load(base::memory_order_relaxed) & marks) != 0; }
void clear(frame& page, state_word marks) { page.state.fetch_and(~marks, base::memory_order_relaxed); }

class sieve final : public eviction {
 public:
  explicit sieve(const frame_arena& arena) : eviction(arena) {}

  void insert(frame& page) override { queue_.push_newest(page); }
  void remove(frame& page, departure) override {
    if (hand_ == &page) hand_ = queue_.newer_than(page);
    queue_.remove(page);
  }
  frame* advance() override {
    if (hand_ == nullptr) hand_ = queue_.oldest();
    if (hand_ == nullptr) return nullptr;
    frame& page = *std::exchange(hand_, queue_.newer_than(*hand_));
    if (!has_any(page, visited)) return &page;
    clear(page, visited);
    return nullptr;
  }
  std::uint32_t size() const override { return queue_.size(); }

 private:
  page_queue queue_{arena_};
  frame* hand_ = nullptr;  // where it looks next; null: at the oldest
};

class clock final : public eviction {
 public:
  explicit clock(const frame_arena& arena) : eviction(arena) {}

  void insert(frame& page) override { queue_.push_newest(page); }
  void remove(frame& page, departure) override { queue_.remove(page); }
  // The ring is cut where the hand is: it passes the oldest, which is then the last that it will come to.
  frame* advance() override {
    frame* page = queue_.oldest();
    if (page == nullptr) return nullptr;
    queue_.remove(*page);
    queue_.push_newest(*page);
    if (!has_any(*page, visited)) return page;
    clear(*page, visited);
    return nullptr;
  }
  std::uint32_t size() const override { return queue_.size(); }

 private:
  page_queue queue_{arena_};
};

class least_recently_used final : public eviction {
 public:
  explicit least_recently_used(const frame_arena& arena) : eviction(arena) {}

  void insert(frame& page) override { queue_.push_newest(page); }
  void remove(frame& page, departure) override {
    if (next_ == &page) next_ = queue_.newer_than(page);
    queue_.remove(page);
  }
  void begin() override { next_ = queue_.oldest(); }
  frame* advance() override { return next_ == nullptr ? nullptr : std::exchange(next_, queue_.newer_than(*next_)); }
  std::uint32_t size() const override { return queue_.size(); }
  void hit(frame& page) override {
    if (queue_.newest() == &page) return;
    remove(page, departure::dropped);
    insert(page);
  }
  bool told_of_hits() const override { return true; }
  state_word marks() const override { return 0; }

 private:
  page_queue queue_{arena_};
  frame* next_ = nullptr;  // where a search looks next
};

class s3_fifo final : public eviction {
 public:
  // Keys remembered at most: as many as pages of 4 KiB in a GiB. A larger cache has a shorter memory than the paper's.
  static constexpr std::uint32_t ghosts_max = 1U << 18;
  static std::uint32_t ghosts_for(std::uint32_t frames_max) { return std::min(frames_max, ghosts_max); }

  explicit s3_fifo(const frame_arena& arena) : eviction(arena) {}
  result<void> reserve(std::uint32_t frames_max) { return ghosts_.reserve(ghosts_for(frames_max)); }

  void insert(frame& page) override { enter(page, ghosts_.take(key_of(page)) ? main_ : small_); }
  void remove(frame& page, departure why) override {
    queue& its = page.in_main_queue ? main_ : small_;
    if (why == departure::evicted && &its == &small_) ghosts_.insert(key_of(page), size() - size() / small_share);
    its.forget(page);
  }
  void begin() override {
    small_.next = small_.pages.oldest();
    main_.next = main_.pages.oldest();
  }
  frame* advance() override {
    const bool small_is_full = small_.pages.size() * small_share >= size();
    if (small_.next != nullptr && (small_is_full || main_.next == nullptr)) return advance_small();
    return main_.next != nullptr ? advance_main() : nullptr;
  }
  std::uint32_t size() const override { return small_.pages.size() + main_.pages.size(); }
  // Once through the small queue, and round the main one until the last mark is gone.
  std::uint64_t steps_max() const override { return std::uint64_t{5} * size(); }
  state_word marks() const override { return visited | visited_twice | visited_thrice; }

 private:
  static constexpr std::uint32_t small_share = 10;  // one part of so many

  struct queue {
    explicit queue(const frame_arena& arena) : pages(arena) {}
    frame* look() { return std::exchange(next, pages.newer_than(*next)); }
    void forget(frame& page) {
      if (next == &page) next = pages.newer_than(page);
      pages.remove(page);
    }
    page_queue pages;
    frame* next = nullptr;  // where a search looks next; null: it has looked at all
  };

  static std::uint64_t key_of(const frame& page) {
    return page.owner.load(base::memory_order_relaxed)->salt + page.number.load(base::memory_order_relaxed);
  }
  void enter(frame& page, queue& into) {
    page.in_main_queue = &into == &main_;
    into.pages.push_newest(page);
    if (into.next == nullptr) into.next = &page;
  }
  frame* advance_small() {
    frame& page = *small_.look();
    if (!has_any(page, visited_twice)) return &page;
    clear(page, marks());
    small_.forget(page);
    enter(page, main_);
    return nullptr;
  }
  frame* advance_main() {
    frame& page = *main_.look();
    const state_word seen = page.state.load(base::memory_order_relaxed);
    if ((seen & marks()) == 0) return &page;
    constexpr std::array highest_first{visited_thrice, visited_twice, visited};
    clear(page, *std::find_if(highest_first.begin(), highest_first.end(),
                              [seen](state_word mark) { return (seen & mark) != 0; }));
    main_.forget(page);
    enter(page, main_);
    return nullptr;
  }

  queue small_{arena_};
  queue main_{arena_};
  ghost_table ghosts_;
};

}  // namespace

bytes eviction::metadata_for(eviction_policy policy, std::uint32_t frames_max) {
  return policy == eviction_policy::s3_fifo ? ghost_table::length_for(s3_fifo::ghosts_for(frames_max)) : bytes{};
}

result<std::unique_ptr<eviction>> eviction::create(eviction_policy policy, const frame_arena& arena,
                                                   std::uint32_t frames_max) {
  std::unique_ptr<eviction> made;
  switch (policy) {
    case eviction_policy::sieve:
      made = std::make_unique<sieve>(arena);
      break;
    case eviction_policy::clock:
      made = std::make_unique<clock>(arena);
      break;
    case eviction_policy::lru:
      made = std::make_unique<least_recently_used>(arena);
      break;
    case eviction_policy::s3_fifo: {
      auto with_ghosts = std::make_unique<s3_fifo>(arena);
      if (const auto reserved = with_ghosts->reserve(frames_max); !reserved) return reserved.error();
      made = std::move(with_ghosts);
      break;
    }
    default:
      return error_from(EINVAL);
  }
  return made;
}

}  // namespace larder::page

namespace larder {

std::string_view name_of(eviction_policy policy) {
  switch (policy) {
    case eviction_policy::sieve:
      return "sieve";
    case eviction_policy::s3_fifo:
      return "s3-fifo";
    case eviction_policy::clock:
      return "clock";
    case eviction_policy::lru:
      return "lru";
  }
  return "unknown";
}

result<eviction_policy> eviction_policy_from(std::string_view name) {
  for (const eviction_policy each : eviction_policies) {
    if (name == name_of(each)) return each;
  }
  return error_from(EINVAL);
}

}  // namespace larder

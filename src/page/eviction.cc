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
// who comes back while that lasts enters the main queue at once. Two things are not as in the paper, for what they gave
// on the trace of a virtual disk (docs/page_cache.md). While the cache grows, what the small queue has no room for goes
// to the main one: else all of the first pages would be in the small queue, and leave unless hit twice. And the main
// queue is a SIEVE: a page that was hit keeps its place, instead of going round as new; so what comes after the pages
// that are used, but is not itself, leaves sooner.
//
// CLOCK. A ring and a hand; a page that was visited loses its mark and is passed.
//
// LRU. A list in the order of last use, exact: each hit takes the mutex and moves its page to the front.
//
// All are O(1), but for marks that a search clears, each set by a hit, and for pages it is given and cannot evict:
// S3-FIFO's small queue and LRU meet those again in each search, for their place in the order is not to change by being
// looked at.
#include "page/eviction.h"

#include <algorithm>
#include <utility>

#include "page/file.h"
#include "page/ghost_table.h"
#include "page/page_queue.h"

namespace larder::page {
namespace {

// Relaxed, here and where marks are set: they publish nothing.
bool has_any(const frame& page, state_word marks) { return (page.state.load(base::memory_order_relaxed) & marks) != 0; }
void clear(frame& page, state_word marks) { page.state.fetch_and(~marks, base::memory_order_relaxed); }

// A queue with SIEVE's hand.
class sieve_queue {
 public:
  explicit sieve_queue(const frame_arena& arena) : pages_(arena) {}
  std::uint32_t size() const { return pages_.size(); }
  void insert(frame& page) { pages_.push_newest(page); }
  void remove(frame& page) {
    if (hand_ == &page) hand_ = pages_.newer_than(page);
    pages_.remove(page);
  }
  frame* following(const frame& page) const { return pages_.newer_than(page); }
  // The next page, if it has none of the marks; else it loses them.
  frame* advance(state_word marks) {
    if (hand_ == nullptr) hand_ = pages_.oldest();
    if (hand_ == nullptr) return nullptr;
    frame& page = *std::exchange(hand_, pages_.newer_than(*hand_));
    if (!has_any(page, marks)) return &page;
    clear(page, marks);
    return nullptr;
  }

 private:
  page_queue pages_;
  frame* hand_ = nullptr;  // where it looks next; null: at the oldest
};

class sieve final : public eviction {
 public:
  explicit sieve(const frame_arena& arena) : eviction(arena) {}

  void insert(frame& page) override { queue_.insert(page); }
  void remove(frame& page, departure) override { queue_.remove(page); }
  frame* advance() override { return queue_.advance(marks()); }
  frame* following(const frame& page) const override { return queue_.following(page); }
  std::uint32_t size() const override { return queue_.size(); }

 private:
  sieve_queue queue_{arena_};
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
  frame* following(const frame& page) const override {
    return &page == queue_.newest() ? queue_.oldest() : queue_.newer_than(page);
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
  frame* following(const frame& page) const override { return queue_.newer_than(page); }
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
  explicit s3_fifo(const frame_arena& arena) : eviction(arena) {}

  void insert(frame& page) override {
    if (ghosts_.take(key_of(page)) || is_full(small_.size(), size() + 1)) return enter_main(page);
    page.in_main_queue = false;
    small_.push_newest(page);
    if (next_ == nullptr) next_ = &page;
  }
  void remove(frame& page, departure why) override {
    if (page.in_main_queue) return main_.remove(page);
    if (why == departure::evicted)
      ghosts_.remember(key_of(page), static_cast<std::uint32_t>(size() - size() / small_share));
    leave_small(page);
  }
  void begin() override {
    next_ = small_.oldest();
    main_looks_ = 2 * std::uint64_t{main_.size()};  // the first may only clear marks
    promoted_ = false;
  }
  frame* advance() override {
    if (next_ != nullptr && (is_full(small_.size(), size()) || main_looks_ == 0)) return advance_small();
    // Once more for those that came from the small queue meanwhile, which is at its end.
    if (main_looks_ == 0 && std::exchange(promoted_, false)) main_looks_ = 2 * std::uint64_t{main_.size()};
    if (main_looks_ == 0) return nullptr;
    --main_looks_;
    return main_.advance(marks());
  }
  frame* following(const frame& page) const override {
    return page.in_main_queue ? main_.following(page) : small_.newer_than(page);
  }
  std::uint32_t size() const override { return small_.size() + main_.size(); }
  // Through the small queue, twice round the main one, and as often round all, if all are in that by then.
  std::uint64_t steps_max() const override { return std::uint64_t{4} * size(); }
  state_word marks() const override { return visited | visited_twice; }
  std::uint32_t share_of_new() const override { return small_share; }

 private:
  static constexpr std::uint32_t small_share = 10;  // one part of so many

  static bool is_full(std::uint64_t small, std::uint64_t all) { return small * small_share >= all; }
  static std::uint64_t key_of(const frame& page) {
    return page.owner.load(base::memory_order_relaxed)->salt + page.number.load(base::memory_order_relaxed);
  }
  void leave_small(frame& page) {
    if (next_ == &page) next_ = small_.newer_than(page);
    small_.remove(page);
  }
  void enter_main(frame& page) {
    page.in_main_queue = true;
    main_.insert(page);
  }
  frame* advance_small() {
    frame& page = *std::exchange(next_, small_.newer_than(*next_));
    if (!has_any(page, visited_twice)) return &page;
    clear(page, marks());
    leave_small(page);
    enter_main(page);
    promoted_ = true;
    return nullptr;
  }

  page_queue small_{arena_};
  frame* next_ = nullptr;  // where a search looks next in the small queue; null: it has looked at all
  sieve_queue main_{arena_};
  std::uint64_t main_looks_ = 0;  // that a search has left in the main queue
  bool promoted_ = false;         // from small to main by this search, since it last went round that
  ghost_table ghosts_{arena_};
};

}  // namespace

result<std::unique_ptr<eviction>> eviction::create(eviction_policy policy, const frame_arena& arena) {
  std::unique_ptr<eviction> made;
  switch (policy) {
    case eviction_policy::sieve:
      made = std::make_unique<sieve>(arena);
      break;
    case eviction_policy::s3_fifo:
      made = std::make_unique<s3_fifo>(arena);
      break;
    case eviction_policy::clock:
      made = std::make_unique<clock>(arena);
      break;
    case eviction_policy::lru:
      made = std::make_unique<least_recently_used>(arena);
      break;
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

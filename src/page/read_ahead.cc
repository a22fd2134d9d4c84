// SPDX-License-Identifier: Apache-2.0
//
// Reading ahead. Who misses a page in an ascending stream reads what follows in the same read, into frames under
// credits of its own. These it takes only if they are there and nobody waits for some, and frames only if they are
// free, within the budget's room, or found clean and not hit after a short search: it waits for nothing, so it adds
// nothing to the argument of progress (frame_supply.cc), and the reader who asked is not kept.
//
// A page that was read ahead has a mark of its own. Its first hit takes that, and leaves the page as one that was just
// missed. So a page that is never used is as one that was never hit: it leaves before all that were, and S3-FIFO does
// not remember it.
#include "page/read_ahead.h"

#include <algorithm>

#include "page/cache_core.h"

namespace larder::page {
namespace {

// Pages that a search for a clean one looks at.
constexpr std::uint64_t cheap_looks_max = 16;

// A stream that goes on misses at least once while so many pages are missed.
constexpr std::uint64_t misses_between_max = 16;

}  // namespace

std::uint32_t read_ahead_streams::note_miss(std::uint64_t first, std::uint64_t end, std::uint32_t most,
                                            std::uint32_t room) {
  ++misses_;
  const auto going_on =
      std::find_if(streams_.begin(), streams_.end(), [first](const stream& each) { return each.next == first; });
  if (going_on == streams_.end()) {
    *std::min_element(streams_.begin(), streams_.end(), [](const stream& left, const stream& right) {
      return left.last_used < right.last_used;
    }) = {.next = end, .last_used = misses_};
    return 0;
  }
  going_on->next = end;
  going_on->last_used = misses_;
  const auto at_work = std::count_if(streams_.begin(), streams_.end(), [&](const stream& each) {
    return &each == &*going_on || (each.window_pages > 0 && each.last_used + misses_between_max > misses_);
  });
  if (at_work > 1) most = std::min(most, room / static_cast<std::uint32_t>(at_work));
  going_on->window_pages = std::min(std::max(2 * going_on->window_pages, first_window_pages), most);
  return going_on->window_pages;
}

void read_ahead_streams::note_read(std::uint64_t end, std::uint64_t pages) {
  for (stream& each : streams_) {
    if (each.next == end) {
      each.next += pages;
      return;
    }
  }
}

std::uint32_t cache_core::pages_to_read_ahead(file& owner, std::uint64_t first, std::uint64_t end) {
  // A stream that is alone reads over what it has read before, a quarter of the cache at most. Several have the room
  // for new pages in common: with more they would push out each other's before they are read.
  const std::uint32_t owned = owned_in(supply_.load(base::memory_order_relaxed));
  const std::uint64_t most = std::min({std::uint64_t{read_ahead_pages_}, owner.pages() - end,
                                       std::uint64_t{batch_pages_max} - (end - first), std::uint64_t{owned / 4}});
  if (most == 0) return 0;
  const base::lock locked(owner.guard);
  return owner.streams.note_miss(first, end, static_cast<std::uint32_t>(most), owned / queue_->share_of_new());
}

pin_admission cache_core::admit_ahead(std::uint32_t pages_max) {
  if (admissions_waiting_.load() != 0) return {};
  const std::uint32_t given = take_credits(1, pages_max);
  return given == 0 ? pin_admission() : pin_admission(*this, given);
}

// The page linked, busy and pinned, for the caller to fill; null if it is there already or there is no cheap frame.
frame* cache_core::begin_ahead(file& owner, std::uint64_t number) {
  {
    const base::lock locked(table_.stripe(owner, number));
    if (table_.find(owner, number) != nullptr) return nullptr;
  }
  frame* spare = cheap_frame();
  if (spare == nullptr) return nullptr;
  frame* page = link_or_find(owner, number, spare);
  if (spare != nullptr) {  // another was faster
    unpin(*page);
    put_free(*spare);
    return nullptr;
  }
  const base::lock locked(queue_guard_);
  queue_->insert(*page);
  return page;
}

frame* cache_core::cheap_frame() {
  frame* grown = nullptr;
  {
    const base::lock locked(queue_guard_);
    if (frame* free = take_free(); free != nullptr) return free;
    grown = grow(growth::spare);
    if (grown == nullptr) {
      std::uint64_t looks = cheap_looks_max;
      return scan_clean(looks);
    }
  }
  wake_admission();  // it adds a credit
  return grown;
}

void cache_core::note_read_ahead(file& owner, std::uint64_t end, std::uint64_t pages) {
  pages_read_ahead_.fetch_add(pages, base::memory_order_relaxed);
  const base::lock locked(owner.guard);
  owner.streams.note_read(end, pages);
}

}  // namespace larder::page

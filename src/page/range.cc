// SPDX-License-Identifier: Apache-2.0
//
// Dropping ranges. A discard has three steps: `zero_pages`, the backing's own discard, `drop_pages`.
//
// The first forgets clean pages and fills the others with zeros and marks them dirty, and waits for what was being
// written: so whatever is written back from now on is zeros, and old bytes cannot reach the backing after its discard.
// The last forgets everything again: whoever read a page in meanwhile may have read old bytes. A page that is being
// read in at that moment is told to read again (`stale`). So after it, what was written before the discard can be read
// no more, and if the backing fails, nothing was lost but what was to be discarded.
//
// Pages that are pinned cannot leave and are zeroed where they are; a change that is being made to one of them, or a
// write to the range at the same time, is ordered before the discard or after it.
//
// A range of more pages than the cache owns is walked by frames, not by page numbers.
#include <cstring>

#include "base/check.h"
#include "page/cache_core.h"

namespace larder::page {

struct cache_core::drop_attempt {
  frame* dropped = nullptr;  // unlinked: the caller's
  frame* pinned = nullptr;   // cannot be dropped now; pinned once more, for the caller
  frame* writing = nullptr;  // wait for that, and try again
};

// `clean_only`: what is dirty counts as pinned.
cache_core::drop_attempt cache_core::try_drop(file& owner, std::uint64_t number, drop_rule rule) {
  const base::lock file_locked(owner.guard);
  const base::lock locked(table_.stripe(owner, number));
  frame* page = table_.find(owner, number);
  if (page == nullptr) return {};
  state_word seen = page->state.load();
  for (;;) {
    if ((seen & busy) != 0) {
      if (page->state.compare_exchange_weak(seen, seen | stale)) return {};
    } else if ((seen & writing) != 0) {
      return {.writing = page};
    } else if ((seen & pins_mask) != 0 || ((seen & dirty) != 0 && rule == drop_rule::clean_only)) {
      if (page->state.compare_exchange_weak(seen, seen + one_pin)) return {.pinned = page};
    } else if (page->state.compare_exchange_weak(seen, unused | (seen & waited))) {
      break;
    }
  }
  if ((seen & dirty) != 0) dirty_pages_.fetch_sub(1, base::memory_order_relaxed);
  unlist_dirty(owner, *page);
  table_.unlink(*page);
  return {.dropped = page};
}

void cache_core::free_dropped(frame& page) {
  {
    const base::lock locked(queue_guard_);
    queue_->remove(page, departure::dropped);
  }
  put_free(page);
}

// Fills a page that try_drop pinned with zeros, and unpins it.
void cache_core::zero_pinned(frame& page, bool to_be_written) {
  if ((page.state.load(base::memory_order_acquire) & valid) != 0) {
    std::memset(arena_.data_of(page), 0, arena_.page_length());
    if (to_be_written) {
      mark_dirty(page);
      // A write that began before may carry old bytes: it has to end before the backing is changed.
      while ((page.state.load() & writing) != 0) waits_.wait(page, writing);
    } else {
      file& owner = *page.owner.load(base::memory_order_relaxed);
      const base::lock locked(owner.guard);
      const state_word before = page.state.fetch_and(~(dirty | failed));
      if ((before & dirty) != 0) dirty_pages_.fetch_sub(1, base::memory_order_relaxed);
      if ((before & writing) == 0) unlist_dirty(owner, page);
    }
  }
  unpin(page);
}

template <typename Action>
void cache_core::for_pages_in_memory(const file& owner, std::uint64_t first, std::uint64_t last, Action action) {
  if (last - first <= owned_in(supply_.load())) {
    for (; first < last; ++first) action(first);
    return;
  }
  table_.synchronize();
  const frame_index end = arena_.end();
  for (frame_index index = 1; index < end; ++index) {
    const frame& at = arena_.at(index);
    // Relaxed: the action finds the page again, under its stripe's mutex; synchronize() made older links visible.
    if (at.owner.load(base::memory_order_relaxed) != &owner) continue;
    const std::uint64_t number = at.number.load(base::memory_order_relaxed);
    if (first <= number && number < last) action(number);
  }
}

void cache_core::zero_pages(file& owner, std::uint64_t first, std::uint64_t last) {
  for_pages_in_memory(owner, first, last, [&](std::uint64_t number) {
    for (;;) {
      const drop_attempt attempt = try_drop(owner, number, drop_rule::clean_only);
      if (attempt.dropped != nullptr) free_dropped(*attempt.dropped);
      if (attempt.pinned != nullptr) zero_pinned(*attempt.pinned, true);
      if (attempt.writing == nullptr) return;
      waits_.wait(*attempt.writing, writing);
    }
  });
}

void cache_core::drop_pages(file& owner, std::uint64_t first, std::uint64_t last) {
  for_pages_in_memory(owner, first, last, [&](std::uint64_t number) {
    for (;;) {
      const drop_attempt attempt = try_drop(owner, number, drop_rule::dirty_too);
      if (attempt.dropped != nullptr) free_dropped(*attempt.dropped);
      if (attempt.pinned != nullptr) zero_pinned(*attempt.pinned, false);
      if (attempt.writing == nullptr) return;
      waits_.wait(*attempt.writing, writing);
    }
  });
}

bool cache_core::all_valid(const file& owner, std::uint64_t first, std::uint64_t last) const {
  if (last - first > owned_in(supply_.load())) return false;
  for (; first < last; ++first) {
    const base::lock locked(table_.stripe(owner, first));
    const frame* page = table_.find(owner, first);
    if (page == nullptr || (page->state.load() & valid) == 0) return false;
  }
  return true;
}

void cache_core::drop_all(file& owner, drop_rule rule, const char* doing) {
  table_.synchronize();
  const frame_index end = arena_.end();
  for (frame_index index = 1; index < end;) {
    const frame& at = arena_.at(index);
    const std::uint64_t number = at.number.load(base::memory_order_relaxed);
    drop_attempt attempt;
    if (at.owner.load(base::memory_order_relaxed) == &owner) attempt = try_drop(owner, number, rule);
    if (attempt.writing != nullptr) {
      waits_.wait(*attempt.writing, writing);
      continue;
    }
    if (attempt.dropped != nullptr) free_dropped(*attempt.dropped);
    LARDER_CHECK(attempt.pinned == nullptr, "page cache \"%s\": %s a file whose page %llu is pinned or dirty",
                 name_.c_str(), doing, static_cast<unsigned long long>(number));
    ++index;
  }
}

void cache_core::abandon(file& owner) { drop_all(owner, drop_rule::dirty_too, "abandoning"); }

void cache_core::close(file& owner) {
  drop_all(owner, drop_rule::clean_only, "closing");
  LARDER_CHECK(owner.dirty_count == 0, "page cache \"%s\": a file is closed while its pages are in use", name_.c_str());
  files_open_.fetch_sub(1);
  release_file(owner);
}

}  // namespace larder::page

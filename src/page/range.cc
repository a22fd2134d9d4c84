// SPDX-License-Identifier: Apache-2.0
//
// Dropping ranges. A discard has three steps: `begin_discard`, the backing's own discard, `end_discard`.
//
// While it is in progress, nothing of its range is read from the backing or written to it, nor discarded by another. It
// is entered into its file's list; from then on, who wants to read a page in waits for its end, a page that becomes
// dirty is `held`, which is not written, and one that is being read in this moment is told to read again (`stale`),
// after the end. Then what is in memory is made zeros: clean pages are forgotten, others are filled with zeros and
// dirty, once a write of them that was under way has ended. So old bytes are read no more and reach the backing no
// more; and whatever is in memory at the end is zeros and what was written since, and newer than the backing. Pages
// that are still nothing but the zeros are forgotten then, or clean where they are pinned, if the backing did its part;
// if it failed, they are written, and nothing was lost but what was to be discarded.
//
// A change that is being made to a page at the same time is ordered before the discard or after it.
//
// Nobody waits for ever: the discarder waits for writes, and they wait for nobody; who has a page busy or needs a frame
// may wait for the discarder.
//
// A range of more pages than the cache owns is walked by frames, not by page numbers.
#include <cstring>

#include "base/check.h"
#include "base/mutant.h"
#include "os/waiting.h"
#include "page/cache_core.h"

namespace larder::page {

struct cache_core::drop_attempt {
  frame* dropped = nullptr;  // unlinked: the caller's
  frame* pinned = nullptr;   // cannot be dropped now; pinned once more, for the caller
  frame* writing = nullptr;  // wait for that, and try again
};

// What is dirty counts as pinned: all of it by `clean_only`, by `zeroed_too` what is more than a discard's zeros.
cache_core::drop_attempt cache_core::try_drop(file& owner, std::uint64_t number, drop_rule rule) {
  const base::lock file_locked(owner.guard);
  const base::lock locked(table_.stripe(owner, number));
  frame* page = table_.find(owner, number);
  if (page == nullptr) return {};
  const auto may_be_lost = [rule](state_word state) {
    return rule == drop_rule::dirty_too || (rule == drop_rule::zeroed_too && (state & zeroed) != 0);
  };
  state_word seen = page->state.load();
  for (;;) {
    if ((seen & busy) != 0) {
      if (page->state.compare_exchange_weak(seen, seen | stale)) return {};
    } else if ((seen & writing) != 0) {
      return {.writing = page};
    } else if ((seen & pins_mask) != 0 || ((seen & dirty) != 0 && !may_be_lost(seen))) {
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
void cache_core::zero_pinned(frame& page) {
  if ((page.state.load(base::memory_order_acquire) & valid) != 0) {
    page.state.fetch_or(zeroed);  // before the zeros, so that a change that comes after them ends it
    std::memset(arena_.data_of(page), 0, arena_.page_length());
    page.state.fetch_or(held);  // it may be dirty already
    set_dirty(page, 0);
    // A write that began before may carry old bytes: it has to end before the backing is changed.
    while ((page.state.load() & writing) != 0) waits_.wait(page, writing);
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

void cache_core::begin_discard(file& owner, discard_in_progress& made) {
  {
    base::unique_lock locked(owner.guard);
    wait_for_discards(owner, locked, made.first, made.last);
    owner.discards.push_back(made);
  }
  for_pages_in_memory(owner, made.first, made.last, [&](std::uint64_t number) {
    for (;;) {
      const drop_attempt attempt = try_drop(owner, number, drop_rule::clean_only);
      if (attempt.dropped != nullptr) free_dropped(*attempt.dropped);
      if (attempt.pinned != nullptr) zero_pinned(*attempt.pinned);
      if (attempt.writing == nullptr) return;
      waits_.wait(*attempt.writing, writing);
    }
  });
}

void cache_core::end_discard(file& owner, discard_in_progress& made, bool succeeded) {
  const auto within = [&](auto action) { for_pages_in_memory(owner, made.first, made.last, action); };
  if (succeeded) {
    within([&](std::uint64_t number) {
      const drop_attempt attempt = try_drop(owner, number, drop_rule::zeroed_too);
      if (attempt.dropped != nullptr) {
        // A flush may wait for the page.
        if ((attempt.dropped->state.load() & waited) != 0) waits_.wake(*attempt.dropped);
        free_dropped(*attempt.dropped);
      }
      if (attempt.pinned != nullptr) clean_zeros(*attempt.pinned);
    });
  }
  {
    const base::lock locked(owner.guard);
    base::intrusive_list<discard_in_progress>::remove(made);
  }
  within([&](std::uint64_t number) { allow_writing(owner, number); });
  const base::lock locked(owner.guard);
  while (waiter* next = owner.discard_waiters.pop_front()) next->owner->unpark();
}

// Makes a page that try_drop pinned clean, if the zeros that it has are the backing's as well, and unpins it.
void cache_core::clean_zeros(frame& page) {
  state_word seen = page.state.load();
  {
    file& owner = *page.owner.load(base::memory_order_relaxed);
    const base::lock locked(owner.guard);
    while ((seen & dirty) != 0 && (seen & zeroed) != 0) {
      if (!page.state.compare_exchange_weak(seen, seen & ~(dirty | failed | held | zeroed))) continue;
      dirty_pages_.fetch_sub(1, base::memory_order_relaxed);
      unlist_dirty(owner, page);
      break;
    }
  }
  if ((seen & waited) != 0) waits_.wake(page);
  unpin(page);
}

// After a discard of a page, unless there is another.
void cache_core::allow_writing(file& owner, std::uint64_t number) {
  frame* page = nullptr;
  {
    const base::lock file_locked(owner.guard);
    const base::lock locked(table_.stripe(owner, number));
    page = table_.find(owner, number);
    if (page == nullptr || owner.is_discarding(number, number + 1)) return;
    const state_word before = page->state.fetch_and(~(held | zeroed));
    if ((before & held) == 0) return;
    page->state.fetch_add(one_pin);  // keeps it while its waiters are told
  }
  if ((page->state.load() & waited) != 0) waits_.wake(*page);
  unpin(*page);
}

void cache_core::wait_for_discards(file& owner, std::uint64_t first, std::uint64_t last) {
  base::unique_lock locked(owner.guard);
  if (!base::is_mutant(base::mutant::read_in_while_discarded)) wait_for_discards(owner, locked, first, last);
}

// With the file's mutex held, but while it parks.
void cache_core::wait_for_discards(file& owner, base::unique_lock& locked, std::uint64_t first, std::uint64_t last) {
  waiter self;
  time_point since{};
  while (owner.is_discarding(first, last)) {
    self.owner = &os::parker::current();
    if (!self.linked()) owner.discard_waiters.push_back(self);
    locked.unlock();
    {
      const os::waiting noted(*self.owner, {.kind = "discard", .object = &owner}, since);
      self.owner->park();
    }
    locked.lock();
  }
  if (self.linked()) base::intrusive_list<waiter>::remove(self);
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

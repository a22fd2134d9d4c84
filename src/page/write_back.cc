// SPDX-License-Identifier: Apache-2.0
//
// Dirty pages. A page that was changed is `dirty`; writing it back first turns `dirty` into `writing` and then writes,
// so that a change during the write makes it dirty again and is written by a later one. A write that fails makes it
// dirty again itself (and `failed`), so the page stays, and every flush tries it until one succeeds (KF-56).
//
// Neighbours of a page that are dirty too leave in the same write, and up to write_runs_max such runs are written at
// once. Who writes holds no lock, needs no memory, and waits for nobody but the disk until all that it began is
// written: for the pages that another is at it waits afterwards.
//
// A file lists its dirty pages, first dirtied first:
//
//   listed ⇔ dirty or writing        while the file's mutex is free
//
// `dirty` appears under the mutex, becomes `writing` by a compare-and-swap that any writer may win, and ends under the
// mutex, together with the listing. So a listed page is that file's as long as the mutex is held, and neither evicted
// nor dropped. What becomes dirty while it is being discarded is `held`: it is written when that has ended (range.cc).
//
// Order of writes: changes of a page wait for a write-back that is under way, so that what is written is one state of
// the page, unless a flush meets a page that somebody is changing at that moment; then that change is not yet
// acknowledged.
#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"
#include "base/mutant.h"
#include "page/write_batch.h"

namespace larder::page {
namespace {

void keep_first_error(result<void>& of_all, const result<void>& next) {
  if (of_all && !next) of_all = next;
}

}  // namespace

void cache_core::mark_dirty(frame& page) { set_dirty(page, zeroed); }

// In one step with the end of what `ends`: a page that is clean for its zeros has not lost a change (range.cc).
void cache_core::set_dirty(frame& page, state_word ends) {
  state_word seen = page.state.load(base::memory_order_relaxed);
  while ((seen & dirty) != 0) {
    // Release: the bytes, to the acquire in begin_write; here and below.
    if (page.state.compare_exchange_weak(seen, seen & ~ends, base::memory_order_acq_rel, base::memory_order_relaxed)) {
      return;
    }
  }
  file& owner = *page.owner.load(base::memory_order_relaxed);
  const base::lock locked(owner.guard);
  const state_word becomes = dirty_state(owner, page);
  while (!page.state.compare_exchange_weak(seen, (seen & ~ends) | becomes, base::memory_order_acq_rel,
                                           base::memory_order_relaxed)) {
  }
  if ((seen & dirty) == 0) dirty_pages_.fetch_add(1, base::memory_order_relaxed);
  list_dirty(owner, page);
}

// With the file's mutex held: what a page that becomes dirty has set.
state_word cache_core::dirty_state(const file& owner, const frame& page) {
  const std::uint64_t number = page.number.load(base::memory_order_relaxed);
  return owner.is_discarding(number, number + 1) ? dirty | held : dirty;
}

// Both with the file's mutex held. A page that was written or dropped meanwhile is not listed any more.
void cache_core::list_dirty(file& owner, frame& page) {
  if (page.dirty_listed || (page.state.load() & (dirty | writing)) == 0) return;
  const frame_index index = arena_.index_of(page);
  page.dirty_listed = true;
  page.dirty_next = no_frame;
  page.dirty_previous = owner.dirty_tail;
  (owner.dirty_tail == no_frame ? owner.dirty_head : arena_.at(owner.dirty_tail).dirty_next) = index;
  owner.dirty_tail = index;
  ++owner.dirty_count;
}

void cache_core::unlist_dirty(file& owner, frame& page) {
  if (!page.dirty_listed) return;
  page.dirty_listed = false;
  (page.dirty_previous == no_frame ? owner.dirty_head : arena_.at(page.dirty_previous).dirty_next) = page.dirty_next;
  (page.dirty_next == no_frame ? owner.dirty_tail : arena_.at(page.dirty_next).dirty_previous) = page.dirty_previous;
  --owner.dirty_count;
}

// Turns `dirty` into `writing`, if the page is dirty and nobody else is at it; the page's key is stable meanwhile, and
// its file stays until end_write.
bool cache_core::begin_write(frame& page, bool pinned_too) {
  state_word seen = page.state.load(base::memory_order_relaxed);
  do {
    const state_word hindrance = base::is_mutant(base::mutant::written_while_discarded) ? 0 : held;
    if ((seen & dirty) == 0 || (seen & (unused | writing | hindrance)) != 0) return false;
    if (!pinned_too && (seen & pins_mask) != 0) return false;
  } while (!page.state.compare_exchange_weak(seen, (seen & ~dirty) | writing, base::memory_order_acq_rel,
                                             base::memory_order_relaxed));
  dirty_pages_.fetch_sub(1, base::memory_order_relaxed);
  return true;
}

// The same for a page that is looked for.
frame* cache_core::begin_write_at(file& owner, std::uint64_t number, bool pinned_too) {
  const base::lock locked(table_.stripe(owner, number));
  frame* page = table_.find(owner, number);
  return page != nullptr && begin_write(*page, pinned_too) ? page : nullptr;
}

void cache_core::write_batch::add(frame& begun) {
  std::uint64_t first = begun.number.load(base::memory_order_relaxed);
  std::uint64_t last = first;
  const std::size_t start = count;
  pages[count++] = &begun;
  while (count < pages.size() && first > 0) {
    frame* below = core.begin_write_at(owner, first - 1, false);
    if (below == nullptr) break;
    pages[count++] = below;
    --first;
  }
  std::reverse(pages.data() + start, pages.data() + count);
  while (count < pages.size() && last + 1 < owner.pages()) {
    frame* above = core.begin_write_at(owner, last + 1, false);
    if (above == nullptr) break;
    pages[count++] = above;
    ++last;
  }
  for (std::size_t i = start; i < count; ++i) {
    vectors[i] = {core.arena_.data_of(*pages[i]), owner.bytes_in_page(first + (i - start))};
  }
  runs[runs_count++] = {.from = std::span(vectors.data() + start, count - start), .offset = owner.offset_of(first)};
  end = last + 1;
}

result<void> cache_core::write_batch::write() {
  const std::span<backing_write> all(runs.data(), runs_count);
  std::ranges::sort(all, {}, &backing_write::offset);
  if (all.size() == 1) {
    all[0].outcome = owner.source.write(all[0].from, all[0].offset);
  } else if (!all.empty()) {
    owner.source.write_many(all);
  }
  result<void> outcome;
  for (const backing_write& run : all) {
    const auto start = static_cast<std::size_t>(run.from.data() - vectors.data());
    LARDER_CHECK(start < count && run.from.size() <= count - start, "page cache \"%s\": write_many changed a write",
                 core.name_.c_str());
    if (start == 0) first_outcome = run.outcome;
    const std::span<frame* const> written(&pages[start], run.from.size());
    core.write_backs_.fetch_add(1, base::memory_order_relaxed);
    if (run.outcome) {
      core.pages_written_.fetch_add(written.size(), base::memory_order_relaxed);
    } else {
      core.write_back_errors_.fetch_add(1, base::memory_order_relaxed);
    }
    keep_first_error(outcome, run.outcome);
    core.end_write(owner, written, static_cast<bool>(run.outcome));
  }
  return outcome;
}

// Writes a page on which begin_write was called, together with its dirty neighbours.
result<void> cache_core::write_back(frame& begun) {
  write_batch batch(*this, *begun.owner.load(base::memory_order_relaxed));  // it is there, for the page is `writing`
  batch.add(begun);
  return batch.write();
}

void cache_core::end_write(file& owner, std::span<frame* const> pages, bool succeeded) {
  const bool good = succeeded || base::is_mutant(base::mutant::failed_write_cleans);
  const state_word lost = base::is_mutant(base::mutant::change_lost_in_write) ? dirty : 0;
  state_word seen_in_all = 0;
  {
    const base::lock locked(owner.guard);
    for (frame* page : pages) {
      state_word seen = page->state.load(base::memory_order_relaxed);
      state_word next = 0;
      do {
        next = good ? seen & ~(writing | failed | lost) : (seen & ~writing) | dirty | failed;
      } while (!page->state.compare_exchange_weak(seen, next));
      if ((next & dirty) == 0) unlist_dirty(owner, *page);
      if ((next & dirty) != 0 && (seen & dirty) == 0) dirty_pages_.fetch_add(1, base::memory_order_relaxed);
      seen_in_all |= seen;
    }
  }
  if ((seen_in_all & waited) != 0) {
    // A page may be another's by now: then its waiters look again for nothing.
    for (frame* page : pages) waits_.wake(*page);
  }
  for (std::size_t i = 0; i < pages.size(); ++i) note_evictable();
  if (succeeded) budget_.note_reclaimable();
}

// A batch of the oldest, in ascending order.
void cache_core::limit_dirty(file& owner) {
  const std::uint64_t owned = owned_in(supply_.load(base::memory_order_relaxed));
  if (dirty_pages_.load(base::memory_order_relaxed) <= static_cast<std::int64_t>(owned * dirty_percent_ / 100)) return;
  std::array<std::uint64_t, batch_pages_max> space{};
  write_each(owner, oldest_dirty(owner, space));
}

// Those that are dirty still and nobody has pinned, with their neighbours. An error is the next flush's to report: it
// will try again. Here the rest would only fail likewise. Not inlined: a caller's stack has room for one batch.
[[gnu::noinline]] void cache_core::write_each(file& owner, std::span<const std::uint64_t> numbers) {
  while (!numbers.empty()) {
    write_batch batch(*this, owner);
    numbers = batch.gather(numbers, false, [](std::uint64_t) {});
    if (!batch.write()) return;
  }
}

// The numbers of a file's oldest dirty pages that did not fail, ascending, as many as there is space for.
std::span<std::uint64_t> cache_core::oldest_dirty(file& owner, std::span<std::uint64_t> into) {
  std::size_t count = 0;
  {
    const base::lock locked(owner.guard);
    std::size_t looked_at = 0;
    for (frame_index index = owner.dirty_head; index != no_frame && looked_at < into.size(); ++looked_at) {
      const frame& page = arena_.at(index);
      index = page.dirty_next;
      if ((page.state.load(base::memory_order_relaxed) & (failed | writing | held)) != 0) continue;
      into[count++] = page.number.load(base::memory_order_relaxed);
    }
  }
  std::sort(into.begin(), into.begin() + static_cast<std::ptrdiff_t>(count));
  return into.first(count);
}

// The file's oldest dirty page, which becomes its newest; null if there is none. One caller at a time.
frame* cache_core::rotate_dirty(file& owner) {
  if (owner.dirty_head == no_frame) return nullptr;
  frame& oldest = arena_.at(owner.dirty_head);
  unlist_dirty(owner, oldest);
  list_dirty(owner, oldest);
  return &oldest;
}

// Each page that was listed at the start is met once, for only this pass moves pages within the list, and others only
// add at its end. They are met in batches, each in ascending order, so that neighbours leave together and a disk with
// an arm does not go to and fro.
result<void> cache_core::write_all(file& owner) {
  result<void> outcome;
  std::uint32_t to_do = 0;
  {
    const base::lock locked(owner.guard);
    to_do = owner.dirty_count;
  }
  std::array<std::uint64_t, batch_pages_max> numbers{};
  while (to_do > 0) {
    std::size_t count = 0;
    {
      const base::lock locked(owner.guard);
      for (; count < numbers.size() && to_do > 0; --to_do) {
        const frame* oldest = rotate_dirty(owner);
        if (oldest == nullptr) break;
        numbers[count++] = oldest->number.load(base::memory_order_relaxed);
      }
    }
    if (count == 0) break;
    const std::span<std::uint64_t> batch(numbers.data(), count);
    std::sort(batch.begin(), batch.end());
    keep_first_error(outcome, write_pages(owner, batch));
  }
  return outcome;
}

// Writes pages whose numbers ascend, as write_page does, and returns the first error: many at once, but for those that
// others are at; these are waited for when nothing is begun. Uses the numbers up.
result<void> cache_core::write_pages(file& owner, std::span<std::uint64_t> numbers) {
  result<void> outcome;
  for (std::span<const std::uint64_t> rest = numbers; !rest.empty();) {
    std::size_t missed = 0;  // so many of the numbers are kept, at their front
    {
      write_batch batch(*this, owner);
      rest = batch.gather(rest, true, [&](std::uint64_t number) {
        if (number >= batch.end) numbers[missed++] = number;  // below it is in a run
      });
      keep_first_error(outcome, batch.write());
    }
    for (const std::uint64_t number : numbers.first(missed)) keep_first_error(outcome, write_page(owner, number));
  }
  return outcome;
}

// Returns when what the page held at the call is written: by a write that began later, or by one that was under way and
// left the page clean. Waits for a discard that holds the page back.
result<void> cache_core::write_page(file& owner, std::uint64_t number) {
  for (;;) {
    frame* page = nullptr;
    bool begun = false;
    {
      const base::lock locked(table_.stripe(owner, number));
      page = table_.find(owner, number);
      if (page == nullptr) return {};
      begun = begin_write(*page, true);
      // Dirty again by now, if another's write has just failed: then it is this one's to write.
      if (!begun && (page->state.load() & (dirty | writing | held)) == 0) return {};
    }
    if (begun) return write_back(*page);
    if (base::is_mutant(base::mutant::flush_of_begun_writes)) return {};
    waits_.wait(*page, writing | held);
  }
}

result<void> cache_core::write_range(file& owner, std::uint64_t first, std::uint64_t last) {
  bool sparse = false;
  {
    const base::lock locked(owner.guard);
    sparse = last - first > owner.dirty_count;
  }
  if (sparse) return owner.write_pass.run([&] { return write_all(owner); });
  result<void> outcome;
  std::array<std::uint64_t, batch_pages_max> numbers{};
  while (first < last) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(numbers.size(), last - first));
    std::iota(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count), first);
    first += count;
    keep_first_error(outcome, write_pages(owner, std::span(numbers.data(), count)));
  }
  return outcome;
}

}  // namespace larder::page

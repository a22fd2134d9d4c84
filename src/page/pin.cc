// SPDX-License-Identifier: Apache-2.0
//
// Pins. A hit is one addition to the page's own state word, after a walk that takes no lock (page_table.cc); an unpin
// is one subtraction. A page that is not there gets a frame, is linked as `busy` and pinned in one step under its
// stripe's mutex, and is whoever linked it to fill; others who come pin it too and wait until it is no more busy.
// Filling ends with `publish`, or with `give_up_filling`: then the page is nobody's, neither valid nor busy, and the
// next who wants it fills it. Pages that are pinned are never unlinked, so nobody who waits at a page loses it.
//
// Two operations do not wait for each other's pages for ever: who waits for a busy page, waits for one above all that
// it has busy itself (cached_file.h asks for ascending order), and who writes back waits for nobody. Who fills a page
// may wait for a discard of it, which waits for writes only (range.cc).
#include "base/check.h"
#include "base/mutant.h"
#include "page/cache_core.h"

namespace larder::page {

// Out of line, so that a hit is short.
void cache_core::unpin_in_vain(frame& page) { unpin(page); }

// Two hits at once may set the same mark, and count as one.
void cache_core::mark_hit(frame& page, state_word before) {
  if ((before & read_ahead) != 0) {
    // This hit is to the page what a miss is to others: it is in its place by it. Relaxed, as all marks.
    const state_word seen = page.state.fetch_and(~read_ahead, base::memory_order_relaxed);
    if ((seen & read_ahead) != 0) read_ahead_hits_.fetch_add(1, base::memory_order_relaxed);
  }
  if (queue_->told_of_hits()) {
    const base::lock locked(queue_guard_);
    queue_->hit(page);  // it is in the queue: it is valid, so it was entered, and pinned
    return;
  }
  if ((before & read_ahead) != 0) return;
  const state_word lowest = marks_full_ & ~(marks_full_ - 1);
  const state_word next = (((before & marks_full_) << 1) | lowest) & marks_full_;
  page.state.fetch_or(next, base::memory_order_relaxed);  // a mark publishes nothing
}

result<cache_core::pinned> cache_core::pin(file& owner, std::uint64_t number) {
  frame* spare = nullptr;
  frame* page = link_or_find(owner, number, spare);
  if (page == nullptr) {
    const auto obtained = obtain_frame();
    if (!obtained) return obtained.error();
    spare = *obtained;
    page = link_or_find(owner, number, spare);
    if (spare == nullptr) {
      const base::lock locked(queue_guard_);
      queue_->insert(*page);
      return pinned{page, pin_outcome::to_fill};
    }
    put_free(*spare);  // another was faster
  }
  return pinned{page, look_at(*page)};
}

// Pins the page if it is there; else links `spare`, busy and pinned, if there is one, and takes it.
frame* cache_core::link_or_find(file& owner, std::uint64_t number, frame*& spare) {
  const base::lock locked(table_.stripe(owner, number));
  if (frame* present = table_.find(owner, number); present != nullptr) {
    // Linked pages become `unused` under this mutex only.
    present->state.fetch_add(one_pin, base::memory_order_acquire);
    return present;
  }
  if (spare == nullptr) return nullptr;
  frame& page = *std::exchange(spare, nullptr);
  begin_generation(page);
  page.owner.store(&owner, base::memory_order_relaxed);
  page.number.store(number, base::memory_order_relaxed);
  // An addition, for a look-up that was led astray may have a pin on it this moment. Release: publishes the key to the
  // acquire of find_and_pin.
  page.state.fetch_add(busy - unused + one_pin, base::memory_order_release);
  table_.link(page);
  return &page;
}

cache_core::pin_outcome cache_core::look_at(frame& page) {
  state_word seen = page.state.load(base::memory_order_acquire);  // partner: publish
  for (;;) {
    if ((seen & valid) != 0) {
      note_hit(page, seen);
      return pin_outcome::filled;
    }
    if ((seen & busy) != 0) return pin_outcome::being_filled;
    if (page.state.compare_exchange_weak(seen, seen | busy, base::memory_order_acquire)) return pin_outcome::to_fill;
  }
}

bool cache_core::publish(frame& page, bool as_dirty, bool ignore_stale, state_word marks) {
  file& owner = *page.owner.load(base::memory_order_relaxed);
  base::unique_lock locked(owner.guard, std::defer_lock);
  state_word becomes = valid | marks;
  if (as_dirty) {
    locked.lock();
    becomes |= dirty_state(owner, page);
  }
  state_word seen = page.state.load(base::memory_order_relaxed);
  state_word next = 0;
  bool again = false;
  do {
    again = (seen & stale) != 0 && !ignore_stale && !base::is_mutant(base::mutant::stale_published);
    next = again ? seen & ~stale : (seen & ~(busy | stale)) | becomes;
    // Release: the bytes, to the acquire of whoever pins.
  } while (!page.state.compare_exchange_weak(seen, next, base::memory_order_acq_rel, base::memory_order_relaxed));
  if (again) return false;
  if (as_dirty) {
    dirty_pages_.fetch_add(1, base::memory_order_relaxed);
    list_dirty(owner, page);
    locked.unlock();
  }
  if ((seen & waited) != 0) waits_.wake(page);
  return true;
}

void cache_core::give_up_filling(frame& page) {
  const state_word before = page.state.fetch_and(~(busy | stale));
  if ((before & waited) != 0) waits_.wake(page);
}

}  // namespace larder::page

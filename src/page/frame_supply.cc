// SPDX-License-Identifier: Apache-2.0
//
// Where frames come from. A frame that is owned is one of: free; holding a page, and then in the eviction queue; in the
// hands of one thread, on its way between these.
//
// Theory: who has a credit gets a frame without waiting for memory. Let P be the pages pinned and H the frames that
// threads have in their hands to use a credit of theirs for; each stands for another credit, so while our thread has an
// unused credit, P + H < admitted ≤ owned (the reclaimer first takes a frame out of `owned` and then looks for it, and
// puts it back into `owned` if it finds none). So at every instant at least one owned frame is neither. It is
//   free                     we take it;
//   clean and not pinned     we evict it;
//   dirty and not pinned     we write it back, which takes no memory (the vectors are on the stack, the pages stay
//   where
//                            they are: KF-52), and evict it; if all such fail, the caller gets the error;
//   being written            by another, who needs no memory either; it ends, and we are woken;
//   held by a discard        the same;
//   on its way to free       we are woken when it is there.
// Pins of others may move from page to page while we look, so that we see each page pinned in turn. So who found
// nothing enters the queue of frame waiters, looks once more, and sleeps until an unpin, the end of a write-back or a
// frame that becomes free wakes it: each of them looks for waiters after it changed the state, both sequentially
// consistent. Each event wakes one waiter, and one that leaves with a frame wakes the next, so an event that met a
// waiter who had found a frame elsewhere is not lost (KF-44).
//
// What a waiter may hold. Who waits for an admission holds no pin that is not covered by an admission of its own
// (page_cache.h forbids a second one). Who waits for a frame holds pins, and a credit; so some owned frame is no pin's,
// and by the above it comes, for its writer, and who discards its range, wait for nothing but the disk. Who waits for
// another's busy page holds fresh pages below that one only (pin.cc), so such waits go upwards and end at one who waits
// for the disk, a discard or a frame. Reading ahead waits for nothing (read_ahead.cc). Nobody holds a file's, the
// queue's or a stripe's mutex over any of these waits. So no cycle of waits exists, however many hold a page and want
// another (KF-51); and no operation has to give back a page of its own to let others go on, for what it lacks was set
// aside before it began (KF-53).
//
// A miss that finds no room to grow may have another cache give clean pages first (even_out): that waits for nobody.
//
// The reclaimers give back what is owned above what is admitted and above the floor, the same way; they wait for
// nobody: when the last of them finds nothing, it asks to be called again at the next of those events (KF-46, KF-49).
// The first takes only clean pages that were not used lately, so that others' memory of that kind goes before any page
// is written; the second all, in the order of eviction.
#include <algorithm>

#include "base/check.h"
#include "base/mutant.h"
#include "budget/even_out.h"
#include "os/memory.h"
#include "os/waiting.h"
#include "page/write_batch.h"

namespace larder::page {
namespace {

// Pages after a dirty one that are looked at for others to write with it: with more, that would cost as much as the
// write. Of a small cache this part: further away are those that are used.
constexpr std::uint32_t following_looks_max = 64;
constexpr std::uint32_t following_share = 8;

// How many misses pass at most between looks at the others' shares: twice as many after each that brought nothing.
constexpr std::uint32_t even_out_misses_max = 8 * even_out_pages;

}  // namespace

// queue_guard_ is held, here and in the next four.
frame* cache_core::take_free() {
  if (free_head_ == no_frame) return nullptr;
  frame& taken = arena_.at(free_head_);
  free_head_ = std::exchange(taken.queue_next, no_frame);
  --free_count_;
  return &taken;
}

frame* cache_core::grow(growth why) {
  if (arena_.not_taken() == 0) return nullptr;
  if (giving_ > 0 && why == growth::spare) return nullptr;  // it would take back what it gives
  const bytes cost = arena_.cost_of(1);
  if (!(why == growth::spare ? budget_.try_charge_spare(cost) : budget_.try_charge(cost))) return nullptr;
  frame& taken = arena_.take();
  supply_.fetch_add(one_owned);
  return &taken;
}

// Takes a page out of the cache if it is clean and nobody has it. It is in the eviction queue, so its key is stable and
// its file is there: both end only after it was taken out of the queue.
bool cache_core::evict(frame& page) {
  const file& owner = *page.owner.load(base::memory_order_relaxed);
  const base::lock locked(table_.stripe(owner, page.number.load(base::memory_order_relaxed)));
  state_word seen = page.state.load(base::memory_order_relaxed);
  do {
    const state_word kept = base::is_mutant(base::mutant::dirty_evicted) ? unevictable & ~dirty : unevictable;
    if ((seen & kept) != 0) return false;
    // Acquire: who unpinned is done with the bytes. Partner: the release in unpin.
  } while (!page.state.compare_exchange_weak(seen, unused | (seen & waited), base::memory_order_acq_rel,
                                             base::memory_order_relaxed));
  table_.unlink(page);
  queue_->remove(page, (seen & read_ahead) != 0 ? departure::dropped : departure::evicted);
  evictions_.fetch_add(1, base::memory_order_relaxed);
  return true;
}

// Looks at every page at most so often that its marks are gone. The first that may go by the policy is the one, clean
// or dirty: to pass dirty pages over would keep them in memory beyond others that are used more. Those that failed are
// passed, and tried again only when there is nothing else.
cache_core::scan_result cache_core::scan(bool retry_failed) {
  frame* last_resort = nullptr;
  queue_->begin();
  for (std::uint64_t steps = queue_->steps_max(); steps > 0; --steps) {
    frame* at = queue_->advance();
    if (at == nullptr) continue;
    const state_word seen = at->state.load(base::memory_order_relaxed);
    if ((seen & unevictable) == dirty && !base::is_mutant(base::mutant::dirty_evicted)) {
      if ((seen & failed) != 0) {
        if (last_resort == nullptr && (seen & held) == 0) last_resort = at;
      } else if (begin_write(*at, false)) {
        scan_result found{.to_write = at};
        note_following(*at, found);
        return found;
      }
    } else if (evict(*at)) {
      return {.clean = at};
    }
  }
  scan_result found;
  if (retry_failed && last_resort != nullptr && begin_write(*last_resort, false)) found.to_write = last_resort;
  return found;
}

// Which of the pages that will be next to go are dirty too, and of the same file.
void cache_core::note_following(const frame& chosen, scan_result& found) {
  const file* owner = chosen.owner.load(base::memory_order_relaxed);
  const state_word kept = unevictable | held | failed | queue_->marks();
  const frame* at = queue_->following(chosen);
  std::uint32_t looks = std::min(following_looks_max, queue_->size() / following_share);
  for (; looks > 0 && at != nullptr && at != &chosen; --looks) {
    const state_word seen = at->state.load(base::memory_order_relaxed);
    if ((seen & kept) == dirty && at->owner.load(base::memory_order_relaxed) == owner) {
      found.following[found.following_count++] = at->number.load(base::memory_order_relaxed);
      if (found.following_count == found.following.size()) return;
    }
    at = queue_->following(*at);
  }
}

// Writes the page that a scan chose, and with it those that will be next to go, and takes it, for the policy's hand is
// past it already. Null if it was hit meanwhile, or is not to be had; a search that begins at the end of a queue meets
// it again first.
result<frame*> cache_core::write_and_evict(scan_result& found) {
  frame& chosen = *found.to_write;
  const std::uint64_t generation = chosen.generation.load();  // it is `writing`, so all of its key stands still
  const std::uint64_t number = chosen.number.load(base::memory_order_relaxed);
  const std::span<std::uint64_t> following(found.following.data(), found.following_count);
  // From that page upwards, and then from below.
  std::sort(following.begin(), following.end());
  std::rotate(following.begin(), std::lower_bound(following.begin(), following.end(), number), following.end());
  file& owner = *chosen.owner.load(base::memory_order_relaxed);
  const file_hold kept(*this, owner);
  result<void> written;
  std::span<const std::uint64_t> rest;
  {
    write_batch batch(*this, owner);
    batch.add(chosen);
    rest = batch.gather(following, false, [](std::uint64_t) {});
    if (!batch.write()) rest = {};
    written = batch.first_outcome;
  }
  write_each(owner, rest);
  if (!written) return written.error();
  const base::lock locked(queue_guard_);
  // Acquire: what has none of these set is in the queue, so it has an owner. Partner: the release in unpin.
  const state_word seen = chosen.state.load(base::memory_order_acquire);
  if ((seen & (unevictable | queue_->marks())) != 0 || queue_->told_of_hits()) return nullptr;
  if (chosen.generation.load() != generation || !evict(chosen)) return nullptr;
  return &chosen;
}

void cache_core::put_free(frame& unneeded) {
  {
    const base::lock locked(queue_guard_);
    unneeded.queue_next = free_head_;
    free_head_ = arena_.index_of(unneeded);
    ++free_count_;
  }
  note_evictable();
}

// With queue_guard_ held: a miss has found no room to grow.
bool cache_core::is_to_even_out() {
  if (arena_.not_taken() == 0 || ++tight_misses_ < tight_misses_most_) return false;
  tight_misses_ = 0;
  return true;
}

// Grows by what other caches have beyond their share.
void cache_core::even_out() {
  const bytes page{arena_.page_length()};
  budget::growth_wish wish;
  std::uint32_t most = 0;
  {
    const base::lock locked(queue_guard_);
    most = std::min(even_out_pages, arena_.not_taken());
    if (most == 0) return;
    wish.least = arena_.cost_of(1);
    wish.grain = wish.least > page ? page * 2 : page;  // if a page of metadata is due too
    wish.wanted = arena_.cost_of(most);
  }
  const bytes given = budget::even_out(budget_, gives_share_, wish);
  for (bytes left = given; most > 0 && left >= page; left -= page, --most) {
    frame* grown = nullptr;
    {
      const base::lock locked(queue_guard_);
      grown = grow(growth::spare);
    }
    if (grown == nullptr) break;
    put_free(*grown);
    wake_admission();
  }
  const base::lock locked(queue_guard_);
  tight_misses_most_ = given.count > 0 ? even_out_pages : std::min(2 * tight_misses_most_, even_out_misses_max);
}

// A frame for who has an unused credit.
result<frame*> cache_core::obtain_frame() {
  waiter self;
  std::error_code error;  // of a write-back: from then on, pages that cannot be written are passed over
  frame* obtained = nullptr;
  time_point since{};
  bool may_even_out = true;  // once
  while (obtained == nullptr) {
    frame* grown = nullptr;
    scan_result found;
    bool evens_out = false;
    {
      const base::lock locked(queue_guard_);
      obtained = take_free();
      // Above the budget's high mark its own pages go first, or those of who has more than its share: others have more
      // use for what is left.
      if (obtained == nullptr) obtained = grown = grow(growth::spare);
      if (obtained == nullptr) evens_out = std::exchange(may_even_out, false) && is_to_even_out();
      if (obtained == nullptr && !evens_out) {
        found = scan(!error);
        if (found.clean == nullptr && found.to_write == nullptr) obtained = grown = grow(growth::needed);
      }
    }
    if (evens_out) {
      even_out();
      continue;
    }
    if (grown != nullptr) wake_admission();  // it adds a credit
    if (obtained == nullptr) obtained = found.clean;
    if (obtained != nullptr) break;
    if (found.to_write != nullptr) {
      const auto taken = write_and_evict(found);
      if (!taken) error = taken.error();
      if (taken) obtained = *taken;
      continue;
    }
    if (error) break;
    if (enter_frame_waiters(self)) continue;
    frame_waits_.fetch_add(1, base::memory_order_relaxed);
    const os::waiting noted(*self.owner, waits_for_pages(no_deadline), since);
    self.owner->park();
  }
  leave_frame_waiters(self);
  if (obtained == nullptr) return error;
  return obtained;
}

// False if it is there already.
bool cache_core::enter_frame_waiters(waiter& self) {
  self.owner = &os::parker::current();
  const base::lock locked(waiters_guard_);
  if (self.linked()) return false;
  frame_waiters_.push_back(self);
  attention_.fetch_add(1);
  return true;
}

void cache_core::leave_frame_waiters(waiter& self) {
  if (self.owner == nullptr) return;  // never entered
  {
    const base::lock locked(waiters_guard_);
    if (self.linked()) {
      base::intrusive_list<waiter>::remove(self);
      attention_.fetch_sub(1);
    }
  }
  wake_frame_waiter();
}

void cache_core::wake_frame_waiter() {
  const base::lock locked(waiters_guard_);
  waiter* oldest = frame_waiters_.pop_front();
  if (oldest == nullptr) return;
  attention_.fetch_sub(1);
  oldest->owner->unpark();
}

void cache_core::tell_of_evictable() {
  const std::uint32_t wanted = attention_.load();
  if (wanted == 0) return;
  if ((wanted & reclaim_missed) != 0) {
    attention_.fetch_and(~reclaim_missed);
    budget_.note_reclaimable();
  }
  if (!base::is_mutant(base::mutant::frame_waiter_unwoken)) wake_frame_waiter();
}

// Takes one frame out of `owned`, if the law and the floor let it go.
bool cache_core::shrink_supply() {
  std::uint64_t seen = supply_.load();
  do {
    const std::uint32_t admitted = base::is_mutant(base::mutant::surplus_of_admitted) ? 0 : admitted_in(seen);
    if (owned_in(seen) <= std::max(floor_, admitted)) return false;
  } while (!supply_.compare_exchange_weak(seen, seen - one_owned));
  return true;
}

// Looks so often at a page: one that is clean and may go without another look, or null.
frame* cache_core::scan_clean(std::uint64_t& looks) {
  queue_->begin();
  for (; looks > 0; --looks) {
    frame* at = queue_->advance();
    if (at != nullptr && evict(*at)) return at;
  }
  return nullptr;
}

// A frame for the reclaimers, without waiting for anybody, or null.
frame* cache_core::surplus_frame(bool any_page) {
  for (bool write_failed = false;;) {
    scan_result found;
    {
      const base::lock locked(queue_guard_);
      if (frame* free = take_free(); free != nullptr) return free;
      if (!any_page) {
        std::uint64_t looks = queue_->size();  // at each once
        return scan_clean(looks);
      }
      found = scan(!write_failed);
    }
    if (found.clean != nullptr || found.to_write == nullptr) return found.clean;
    if (const auto taken = write_and_evict(found); !taken) {
      if (write_failed) return nullptr;
      write_failed = true;
    } else if (*taken != nullptr) {
      return *taken;
    }
  }
}

// What is admitted counts too, though it cannot be given now: shares are of what is held, not of who is at work.
reclaimer::share cache_core::share_held() const {
  const std::uint32_t owned = owned_in(supply_.load(base::memory_order_relaxed));  // a figure to choose by
  return {.surplus = bytes{arena_.page_length()} * (owned > floor_ ? owned - floor_ : 0), .weight = weight_};
}

// A frame that is out of `owned`, and whose page is out of the cache. False if the system keeps the memory: then it
// stays owned, and charged (KF-48).
bool cache_core::give_back(frame& surplus) {
  begin_generation(surplus);
  const bytes page{arena_.page_length()};
  if (!os::discard(arena_.data_of(surplus), page)) {
    supply_.fetch_add(one_owned);
    put_free(surplus);
    wake_admission();
    return false;
  }
  {
    const base::lock locked(queue_guard_);
    arena_.give_back(surplus);
  }
  pages_reclaimed_.fetch_add(1, base::memory_order_relaxed);
  budget_.release(page);
  wake_admission();  // it may be the front that has memory for a frame and found none
  return true;
}

// Gives back up to so many frames that `surplus()` finds, or as many as it does.
template <typename Find>
std::uint64_t cache_core::give_frames(std::uint64_t most, Find surplus) {
  std::uint64_t given = 0;
  for (; given < most && shrink_supply(); ++given) {
    frame* found = surplus();
    if (found == nullptr) {
      supply_.fetch_add(one_owned);
      wake_admission();
      break;
    }
    if (!give_back(*found)) break;
  }
  return given;
}

// What the eviction policy would take next, in a bounded number of looks at it: a cache that uses all it has gives
// little. A hand that begins anew each time (LRU, S3-FIFO) may meet the same dirty pages again, so who gave less than
// half looks twice as often at its next call.
bytes cache_core::give_share(bytes wanted) {
  const bytes page{arena_.page_length()};
  const std::uint64_t most = wanted / page;
  std::uint64_t looks = 0;
  {
    const base::lock locked(queue_guard_);
    ++giving_;
    looks = share_looks_ * most;
  }
  bool found_none = false;
  const std::uint64_t given = give_frames(most, [&] {
    const base::lock locked(queue_guard_);
    frame* surplus = take_free();
    if (surplus == nullptr) surplus = scan_clean(looks);
    found_none = surplus == nullptr;
    return surplus;
  });
  // A reclaimer that looked meanwhile saw one less. (Those do not say so themselves: they would never come to rest.)
  if (found_none) budget_.note_reclaimable();
  const base::lock locked(queue_guard_);
  --giving_;
  share_looks_ = page * given * 2 >= wanted ? std::max(share_looks_ / 2, share_looks_min)
                                            : std::min(2 * share_looks_, std::max(queue_->size(), share_looks_min));
  return page * given;
}

bytes cache_core::reclaim(bytes wanted, bool any_page) {
  const std::uint64_t page = arena_.page_length();
  const std::uint64_t given = give_frames(wanted.count / page + (wanted.count % page != 0 ? 1 : 0), [&] {
    frame* surplus = surplus_frame(any_page);
    if (surplus == nullptr && any_page) {
      attention_.fetch_or(reclaim_missed);
      surplus = surplus_frame(any_page);
    }
    return surplus;
  });
  return bytes{page} * given;
}

}  // namespace larder::page

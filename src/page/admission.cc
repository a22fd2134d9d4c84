// SPDX-License-Identifier: Apache-2.0
//
// Admission: pages may be pinned only under credits, and
//
//   admitted ≤ owned      at every instant
//
// because both stand in one word, and credits are added, and frames taken away, by a compare-and-swap that keeps it. So
// there is a frame behind every credit (what that gives is proved in frame_supply.cc).
//
// Credits come from what is owned and not admitted, else from new frames that the budget grants at once, else the
// caller waits. Waiters stand in a queue, first come, first served, large or small; nobody overtakes while it is not
// empty. Its front waits for two things, whichever comes first: credits that others give back, and memory, with a
// ticket in the budget's own queue. No return is missed: a waiter enters, then looks at the supply; who gives back
// subtracts, then looks for waiters (both sequentially consistent).
//
// The ticket is for the pages that would be lacking if the budget took back all that it may, for to meet the ticket it
// may ask this very cache: with a ticket for less, what is handed over would be what was taken away, for ever.
#include "base/check.h"
#include "base/mutant.h"
#include "budget/event.h"
#include "budget/ticket.h"
#include "os/waiting.h"
#include "page/cache_core.h"

namespace larder::page {

result<pin_admission> cache_core::admit(std::uint32_t pages_min, std::uint32_t pages_max, time_point deadline) {
  LARDER_CHECK(0 < pages_min && pages_min <= pages_max, "page cache \"%s\": admission of %u to %u pages", name_.c_str(),
               pages_min, pages_max);
  if (pages_min > arena_.capacity()) return error_from(ENOMEM);
  if (admissions_waiting_.load() == 0) {
    std::uint32_t given = take_credits(pages_min, pages_max);
    if (given == 0) given = grow_for(pages_min, pages_max);
    if (given != 0) return pin_admission(*this, given);
  }
  waiter self;
  self.owner = &os::parker::current();
  {
    const base::lock locked(waiters_guard_);
    admission_waiters_.push_back(self);
    admissions_waiting_.fetch_add(1);
  }
  // Release: who sees it counted finds it in the queue. Partner: stats.
  admission_waits_.fetch_add(1, base::memory_order_release);
  time_point since{};
  while (!is_front(self)) {
    const os::waiting noted(*self.owner, waits_for_pages(deadline), since);
    if (self.owner->park_until(deadline)) continue;
    leave_admissions(self);
    return error_from(ETIMEDOUT);
  }
  const auto given = wait_at_front(pages_min, pages_max, deadline, since);
  leave_admissions(self);
  if (!given) {
    budget::tell_out_of_memory(budget_, bytes{arena_.page_length()} * pages_min);
    return given.error();
  }
  return pin_admission(*this, *given);
}

void cache_core::end_admission(std::uint32_t pages) {
  supply_.fetch_sub(pages);
  wake_admission();
  budget_.note_reclaimable();
}

void cache_core::count_look_ups(std::uint32_t hits, std::uint32_t misses) {
  if (hits != 0) hits_.fetch_add(hits, base::memory_order_relaxed);
  if (misses != 0) misses_.fetch_add(misses, base::memory_order_relaxed);
}

// Between `pages_min` and `pages_max` credits from what is owned, or 0.
std::uint32_t cache_core::take_credits(std::uint32_t pages_min, std::uint32_t pages_max) {
  std::uint64_t seen = supply_.load();
  for (;;) {
    const std::uint32_t open = owned_in(seen) - admitted_in(seen);
    if (open < pages_min) return 0;
    const std::uint32_t given =
        base::is_mutant(base::mutant::admission_over_granted) ? pages_max : std::min(open, pages_max);
    if (supply_.compare_exchange_weak(seen, seen + given)) return given;
  }
}

// The same after growing by what is lacking, as far as the budget has room now.
std::uint32_t cache_core::grow_for(std::uint32_t pages_min, std::uint32_t pages_max) {
  for (;;) {
    frame* grown = nullptr;
    {
      const base::lock locked(queue_guard_);
      grown = grow(growth::needed);
    }
    if (grown == nullptr) return 0;
    put_free(*grown);
    if (const std::uint32_t given = take_credits(pages_min, pages_max); given != 0) return given;
  }
}

os::wait_contents cache_core::waits_for_pages(time_point deadline) const {
  const auto look = [](const void* object, os::wait_subject& into) {
    into.set_name(static_cast<const cache_core*>(object)->name_);
  };
  return {.kind = "pages", .object = this, .look = look, .deadline = deadline};
}

result<std::uint32_t> cache_core::wait_at_front(std::uint32_t pages_min, std::uint32_t pages_max, time_point deadline,
                                                time_point& since) {
  // What is sure to come back are the pages that never leave.
  if (pages_min > floor_ && !may_ever_own(pages_min)) return error_from(ENOMEM);
  os::parker& self = os::parker::current();
  for (;;) {
    if (const std::uint32_t given = take_credits(pages_min, pages_max); given != 0) return given;
    const std::uint32_t lacking = lacking_for(pages_min);
    const bytes cost = cost_of_growing(lacking);
    budget_ticket ticket(budget_, cost);
    const bool may_grow = cost.count > 0 && ticket.begin();
    for (bool in_time = true;;) {
      if (const std::uint32_t given = take_credits(pages_min, pages_max); given != 0) return given;
      if (may_grow && ticket.granted()) {
        ticket.take();
        grow_with(cost);
        break;
      }
      if (may_grow && ticket.refused()) break;  // the limit has come down: what is possible is looked at again
      if (!in_time) return error_from(ETIMEDOUT);
      const os::waiting noted(self, waits_for_pages(deadline), since);
      in_time = self.park_until(deadline);
      // Nobody is admitted before the front, so what it lacks only falls, and it asks anew a few times at most.
      if (in_time && (!may_grow || lacking_for(pages_min) < lacking)) break;
    }
  }
}

// Whether the budget is large enough for so many pages and what else the cache takes.
bool cache_core::may_ever_own(std::uint32_t pages) const {
  const bytes least = fixed_charge_ + bytes{arena_.page_length()} * pages;
  for (const memory_budget* node = &budget_; node != nullptr; node = node->parent()) {
    if (least > node->limit() - node->reserve()) return false;
  }
  return true;
}

// How many pages are to be charged for so many more credits, if the budget has taken back what it may; 0 if that does
// not help now, but the return of credits, or of frames that are on their way back to the arena, will.
std::uint32_t cache_core::lacking_for(std::uint32_t pages) const {
  const std::uint64_t supply = supply_.load();
  const std::uint32_t admitted = admitted_in(supply);
  {
    const base::lock locked(queue_guard_);
    if (owned_in(supply) + arena_.not_taken() < admitted + pages) return 0;
  }
  if (base::is_mutant(base::mutant::own_frames_asked_back)) return admitted + pages - owned_in(supply);
  const std::uint32_t kept = floor_ - std::min(floor_, admitted);
  return pages - std::min(pages, kept);
}

bytes cache_core::cost_of_growing(std::uint32_t pages) const {
  const base::lock locked(queue_guard_);
  const std::uint32_t new_to_the_arena = std::min(pages, arena_.not_taken());
  return arena_.cost_of(new_to_the_arena) + bytes{arena_.page_length()} * (pages - new_to_the_arena);
}

// Turns a charge that was made into free frames, as far as it goes, and gives back the rest.
void cache_core::grow_with(bytes charged) {
  std::uint32_t grown = 0;
  {
    const base::lock locked(queue_guard_);
    while (arena_.not_taken() > 0) {
      const bytes cost = arena_.cost_of(1);
      if (cost > charged) break;
      charged -= cost;
      frame& taken = arena_.take();
      taken.queue_next = free_head_;
      free_head_ = arena_.index_of(taken);
      ++free_count_;
      ++grown;
    }
    supply_.fetch_add(grown * one_owned);
  }
  if (charged.count > 0) budget_.release(charged);
  for (; grown > 0; --grown) note_evictable();
}

bool cache_core::is_front(const waiter& self) const {
  const base::lock locked(waiters_guard_);
  return admission_waiters_.front() == &self;
}

void cache_core::leave_admissions(waiter& self) {
  {
    const base::lock locked(waiters_guard_);
    base::intrusive_list<waiter>::remove(self);
    admissions_waiting_.fetch_sub(1);
  }
  wake_admission();
}

// Lets the front look again.
void cache_core::wake_admission() {
  if (admissions_waiting_.load() == 0) return;  // partner: the increment in admit, before the waiter looks
  const base::lock locked(waiters_guard_);
  if (waiter* front = admission_waiters_.front(); front != nullptr) front->owner->unpark();
}

}  // namespace larder::page

namespace larder {

pin_admission::pin_admission(pin_admission&& other) noexcept { *this = std::move(other); }

pin_admission& pin_admission::operator=(pin_admission&& other) noexcept {
  if (this == &other) return *this;
  reset();
  LARDER_CHECK(other.pinned_ == 0, "an admission is moved while %u pages are pinned under it", other.pinned_);
  core_ = std::exchange(other.core_, nullptr);
  pages_ = std::exchange(other.pages_, 0);
  hits_ = std::exchange(other.hits_, 0);
  misses_ = std::exchange(other.misses_, 0);
  return *this;
}

void pin_admission::reduce(std::uint32_t pages) {
  if (core_ == nullptr) return;
  LARDER_CHECK(pinned_ <= pages, "an admission is reduced to %u pages, but %u are pinned under it", pages, pinned_);
  core_->count_look_ups(std::exchange(hits_, 0), std::exchange(misses_, 0));
  if (pages < pages_) core_->end_admission(std::exchange(pages_, pages) - pages);
}

}  // namespace larder

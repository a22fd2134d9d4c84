// SPDX-License-Identifier: Apache-2.0
#include "task/wait_queue.h"

#include <algorithm>
#include <functional>

#include "base/mutant.h"
#include "os/clock.h"
#include "os/waiting.h"
#include "task/completion.h"

namespace larder::sync {

using base::is_mutant;
using base::mutant;

namespace {

void push(waiter_queue& queue, wait_place& place) {
  place.queue = &queue;
  place.next = nullptr;
  place.previous = queue.last;
  (queue.last == nullptr ? queue.first : queue.last->next) = &place;
  queue.last = &place;
}

void remove(wait_place& place) {
  waiter_queue& queue = *place.queue;
  (place.previous == nullptr ? queue.first : place.previous->next) = place.next;
  (place.next == nullptr ? queue.last : place.next->previous) = place.previous;
  place.queue = nullptr;
}

}  // namespace

guard_set::guard_set(std::span<short_lock*> guards) {
  if (!is_mutant(mutant::guards_unordered)) std::sort(guards.begin(), guards.end(), std::less<>());
  const auto end = std::unique(guards.begin(), guards.end());
  guards_ = guards.first(static_cast<std::size_t>(end - guards.begin()));
}

void waiter::enter(wait_place& place, waiter_queue& queue) {
  place.who = this;
  place.sibling = places;
  places = &place;
  push(queue, place);
}

wait_place* tell_first(waiter_queue& queue) {
  while (wait_place* oldest = queue.first) {
    remove(*oldest);
    wait_place* nobody = nullptr;
    // Relaxed: it decides between tellers under different guards, who pass nothing to each other; the waiter takes the
    // winner's guard before it looks.
    if (oldest->who->chosen.compare_exchange_strong(nobody, oldest, base::memory_order_relaxed)) return oldest;
    if (is_mutant(mutant::claim_unheeded)) return oldest;
  }
  return nullptr;
}

bool wait_until_told(std::unique_lock<guard_set>& held, waiter& self, time_point deadline) {
  const auto is_cancelled = [&self] { return self.reason.can_be_cancelled && self.owner.must_cancel(); };
  const wait_reason& why = self.reason;
  time_point since{};
  bool in_time = true;
  while (!self.told() && in_time && !is_cancelled()) {
    held.unlock();
    {
      const os::waiting noted(self.owner, {why.kind, why.object, -1, why.look, deadline}, since);
      in_time = self.owner.park_until(deadline);
    }
    held.lock();
  }
  const bool told = self.told() && (in_time || !is_mutant(mutant::deadline_drops_grant));
  for (wait_place* place = self.places; place != nullptr; place = place->sibling) {
    if (is_mutant(mutant::places_left_behind) && told) break;
    if (place->queue != nullptr) remove(*place);
  }
  if ((!told || is_mutant(mutant::cancel_drops_grant)) && is_cancelled()) task_layer::heed_cancellation(self.owner);
  return told;
}

bool has_passed(time_point deadline) {
  return deadline != no_deadline && (deadline == at_once || deadline <= os::now());
}

}  // namespace larder::sync

// SPDX-License-Identifier: Apache-2.0
//
// Free entries: where they come from and go when a CPU's own ring is empty or full (theory: table_state.cc).
#include "base/mutant.h"
#include "cache/span.h"
#include "handle/table_state.h"

namespace larder {

using namespace handle_layer;

namespace {

// Below a frame's worth, a new frame is better than a steal, which has to fence.
constexpr std::uint64_t worth_stealing = entries_per_frame;

}  // namespace

void raw_handle_table::state::free_entry(std::uint32_t index, std::uint32_t owner) {
  for (;;) {
    if (free.current() != owner ? free.send(owner, index) : free.put(owner, index)) return;
    const base::lock locked(guard);  // waits until the list is open
    if (free.current() != owner) {
      spare_inbox(owner);
      add_spare(index);  // not sent: a sender that has left a gap may keep the inbox full
      return;
    }
    if (free.is_full(owner)) unload(owner);
  }
}

bool raw_handle_table::state::finish_erase(std::uint32_t index, std::uint32_t owner) {
  free_entry(index, owner);
  return true;
}

handle raw_handle_table::state::insert_slowly(void* object) {
  taken_entry taken;
  bool charged = false;
  found searched = search(charged, taken);
  // Reclaiming is the budget's own business if this is called by a reclaimer.
  if (searched == found::no_memory && !os::parker::current().reclaiming) {
    charged = cache::charge_now(budget, frame_table::frame_charge);
    if (charged) searched = search(charged, taken);
  }
  if (charged) budget.release(frame_table::frame_charge);
  if (searched == found::entry) return use(taken.index, free.at(taken.owner).taken, object);
  insert_failures.add();
  return {};
}

// With `charged` a frame is paid for; it is false afterwards if that was used.
//
// Says that nothing is free only if there was an instant when that was so: all lists were empty when looked at, and
// nothing was taken from a ring from before the first look to after the last, so nothing can have gone, used and freed,
// from a list that was yet to be looked at to one that had been. What others have claimed and not freed yet is not
// free: their erase has not returned.
raw_handle_table::state::found raw_handle_table::state::search(bool& charged, taken_entry& result) {
  const base::lock locked(guard);
  for (;;) {
    const std::uint64_t takes_before = free.takes();
    const std::uint32_t list = free.current();
    // Others of this CPU may have filled it meanwhile.
    if (free.take(list, result.index)) {
      result.owner = list;
      return found::entry;
    }
    if (spare.size == 0 && list < free.count() && take_sent(list, result)) return found::entry;
    found refusal = found::nothing;
    bool all_empty = false;
    if (spare.size == 0) {
      const overview seen = look_around(list);
      if (seen.elsewhere < worth_stealing) grow(charged, refusal);
      if (spare.size == 0 && seen.elsewhere > 0) steal(seen.fullest);
      if (spare.size == 0 && refusal == found::nothing) grow(charged, refusal);
      all_empty = seen.elsewhere + seen.here == 0;
    }
    if (spare.size > 0) {
      use_spare(list, result);
      return found::entry;
    }
    if (all_empty && (free.takes() == takes_before || base::is_mutant(base::mutant::fail_after_one_look))) {
      return refusal;
    }
  }
}

// One entry for the caller, and a batch for its ring.
void raw_handle_table::state::use_spare(std::uint32_t list, taken_entry& result) {
  result.index = remove_spare();
  result.owner = list < free.count() ? list : 0;
  direct_inserts.add();
  for (std::uint64_t batch = free.batch(); batch > 0 && spare.size > 0; --batch) {
    const std::uint32_t index = remove_spare();
    if (free.put(list, index)) continue;
    add_spare(index);
    return;
  }
}

void raw_handle_table::state::add_spare(std::uint32_t index) {
  free.add(spare, index);
  spare_size.add();
}

std::uint32_t raw_handle_table::state::remove_spare() {
  spare_size.subtract(1);
  return free.remove_first(spare);
}

void raw_handle_table::state::grow(bool& charged, found& refusal) {
  const std::uint32_t number = entries.lowest_absent();
  if (number == entries.frames_max()) return;
  if (!entries.add(number, charged)) {
    refusal = found::no_memory;
    return;
  }
  charged = false;
  const std::uint32_t generation = entries.bookkeeping(number).last_generation;
  const std::uint32_t first = number * entries_per_frame;
  for (std::uint32_t index = first + entries.entries_of(number); index-- > first;) {
    // Before the entry can be taken (KF-24). Release: a walk over the table sees it whole; partner: for_each.
    entries.at(index).word.store(word_of(format.free_tag(index, generation), no_link), base::memory_order_release);
    add_spare(index);
  }
}

raw_handle_table::state::overview raw_handle_table::state::look_around(std::uint32_t list) const {
  overview seen;
  std::uint64_t most = 0;
  for (std::uint32_t other = 0; other < free.count(); ++other) {
    const std::uint64_t length = free.length(other);
    (other == list ? seen.here : seen.elsewhere) += length;
    if (other == list || length <= most) continue;
    most = length;
    seen.fullest = other;
  }
  return seen;
}

// All that was freed elsewhere for the victim, which needs no fence, or else half of its ring.
void raw_handle_table::state::steal(std::uint32_t victim) {
  spare_inbox(victim);
  if (spare.size == 0) {
    if (!base::is_mutant(base::mutant::steal_without_closing)) free.close(victim);
    if (!base::is_mutant(base::mutant::steal_without_fence)) os::fence_sequences();
    spare = free.take_share(victim, (free.ring_length(victim) + 1) / 2);
    free.open(victim);
    moved.add(spare.size);
    spare_size.add(spare.size);
  }
  if (spare.size > 0) steals.add();
}

void raw_handle_table::state::spare_inbox(std::uint32_t list) {
  free.empty_inbox(list, [this](std::uint32_t index) { add_spare(index); });
}

// What was sent to this thread's list: one entry for the caller, a batch for the ring, and the rest is spare. False if
// it was nothing.
bool raw_handle_table::state::take_sent(std::uint32_t list, taken_entry& result) {
  bool taken = false;
  std::uint64_t room = free.batch();
  free.empty_inbox(list, [&](std::uint32_t index) {
    entries.expect_change(index);
    if (!taken) {
      taken = true;
      result = {index, list};
      direct_inserts.add();
    } else if (room == 0 || !free.put(list, index)) {
      room = 0;
      add_spare(index);
    } else {
      --room;
    }
  });
  return taken;
}

// Moves half of this CPU's ring to the spare entries.
void raw_handle_table::state::unload(std::uint32_t list) {
  std::uint32_t index = 0;
  for (std::uint64_t batch = free.batch(); batch > 0 && free.take(list, index); --batch) {
    moved.add();
    add_spare(index);
  }
}

}  // namespace larder

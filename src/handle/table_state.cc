// SPDX-License-Identifier: Apache-2.0
//
// A table is entries in frames (frame_table.h) and, for each CPU, a list of free ones (free_list.h).
//
//   insert   takes an entry of the CPU's own list, then writes its object, then its word: the handle and the owner
//   erase    claims the entry by changing its word's tag, then frees it: to the owner's ring or to the owner's inbox
//   find     reads tag, object, tag; if both tags are the handle, the object is its own
//
// Who claims is decided on the entry's word, which any CPU may change: one erases, another pins. A compare-and-swap
// would decide it, but costs more than all the rest of an insert and an erase. So a list is *biased* at first: the
// words of the entries that were taken from it are changed by its own CPU only, in restartable sequences, with plain
// stores. Who comes from elsewhere makes the list *shared*: stops the gate, fences, so that no such sequence is in
// progress, and opens it as shared; from then on everybody compares and swaps. After many changes by the owner alone
// the list is biased again, by the same steps; so the compare-and-swap is part of a sequence as well, to be fenced off.
//
// When a CPU's ring is empty, insert fills it, under the table's mutex, from its inbox or the spare entries, which are
// nobody's; else from a new frame or a share of the fullest list; and fails only if nothing is free anywhere and no
// frame can be had (KF-25, KF-26). Entries move between lists only under that mutex, so none is on its way while
// another looks. An erase that finds the ring full moves half of it to the spare entries.
//
// What a find sees: a user's object is stored before its word, and both after the last user's word was changed by its
// erase, all with release order. So whoever saw a handle's tag before and after they read the object has read the
// object of that handle.
//
// Laws (audit):
//
//   used + pinned + free = entries of the frames that are there ≤ limit
//   an entry is free ⇔ it is exactly once on a ring, in an inbox or spare ⇔ its tag is no handle of its index and its
//   word does not say taken
//   0 ≤ tail − head ≤ size of a ring, in an inbox too; each of its places from head to tail is filled, or was taken
//   size = used + pinned; inserts − erases = size
//   frames ≥ those of the reservation; what is charged = what is there
//   no gate is stopped and no list closed; without sequences all are shared
#include "handle/table_state.h"

#include <algorithm>
#include <new>

#include "base/check.h"
#include "base/mutant.h"
#include "cache/span.h"

namespace larder {

using namespace handle_layer;

namespace {

// Changes of its own entries in a row after which a CPU gets them for itself again: they cost some 300 µs, the two
// fences less than 1 % of that.
#ifdef LARDER_SCHEDULED
constexpr std::uint32_t bias_after = 2;
#else
constexpr std::uint32_t bias_after = 1 << 16;
#endif

// Below a frame's worth, a new frame is better than a steal, which has to fence.
constexpr std::uint64_t worth_stealing = entries_per_frame;

// Tables begin at generations that lie far apart, whatever the number of bits: multiples of the golden ratio's. In a
// schedule that is to be replayed, all begin alike.
std::uint32_t next_first_generation() {
#ifdef LARDER_SCHEDULED
  return 0;
#else
  static base::counter tables;
  tables.add();
  return static_cast<std::uint32_t>(tables.value()) * 0x9e3779b9U;
#endif
}

}  // namespace

raw_handle_table::state::state(std::string_view chosen_name, const options& chosen, memory_budget& charged)
    : format(chosen.limit, next_first_generation()),
      entries(charged, format, chosen.limit),
      free(charged, entries, chosen.limit),
      sequences(free.has_sequences()),
      fast_erase(sequences && chosen.released == nullptr),
      released(chosen.released),
      context(chosen.context),
      name(chosen_name),
      limit(chosen.limit),
      frames_reserved((chosen.reservation + entries_per_frame - 1) / entries_per_frame),
      budget(charged),
      charge(cache::charge_or_throw(charged, bytes{sizeof(state)})),
      registered([this, component = "handle_table/" + name](const base::stat_visitor& show) {
        const statistics now = figures();
        show({component, "entries", now.entries});
        show({component, "limit", now.limit});
        show({component, "frames", now.frames});
        show({component, "inserts", now.inserts});
        show({component, "erases", now.erases});
        show({component, "insert_failures", now.insert_failures});
        show({component, "stale_handles", now.stale});
        show({component, "forged_handles", now.forged});
        show({component, "steals", now.steals});
        show({component, "shared_lists", now.shared});
        show({component, "charged_bytes", now.charged.count});
      }) {
  while (entries.frames_there() < frames_reserved) {
    bool paid = cache::charge_now(budget, frame_table::frame_charge);
    if (!paid) throw std::bad_alloc();
    found refusal = found::nothing;
    const base::lock locked(guard);
    grow(paid, refusal);
    if (refusal != found::nothing) {
      budget.release(frame_table::frame_charge);
      throw std::bad_alloc();
    }
  }
  budget.add_reclaimer(*this, reclaim_stage::empty_slabs);
}

raw_handle_table::state::~state() { budget.remove_reclaimer(*this); }

// ---- Changing a taken entry's word ----

bool raw_handle_table::state::change(entry& changed, std::uint64_t seen, std::uint64_t desired) {
  // Without sequences everything is shared for ever. Sequentially consistent: whatever the winner does next is after.
  if (!sequences) return changed.word.compare_exchange_strong(seen, desired);
  const std::uint32_t owner = owner_of(seen);
  const cpu_list& list = free.at(owner);
  for (;;) {
    const std::uint32_t here = free.current();
    if (here >= free.count()) return change_alone(changed, seen, desired);
    const gate seen_gate = free.gate_of(owner);
    os::sequence_result result = os::sequence_result::restarted;
    if (seen_gate == gate::biased) {
      if (here != owner) {
        share(owner);
        continue;
      }
      result =
          os::compare_store(owner, list.gate, static_cast<std::uint64_t>(gate::biased), changed.word, seen, desired);
    } else if (seen_gate == gate::shared) {
      result =
          os::gated_compare_exchange(list.gate, static_cast<std::uint64_t>(gate::shared), changed.word, seen, desired);
      if (result == os::sequence_result::done) note_shared_change(owner);
    } else {
      wait_until_open();
    }
    if (result != os::sequence_result::restarted) return result == os::sequence_result::done;
  }
}

std::uint64_t raw_handle_table::state::claim(handle which, entry& claimed, std::uint32_t more) {
  for (;;) {
    const std::uint64_t seen = claimed.word.load(base::memory_order_acquire);  // partner: use
    // "None" is zero, and so is memory that was never used.
    if (tag_of(seen) != which.value || which.value == 0) return 0;
    if (change(claimed, seen, word_of(~which.value, below(seen) | more))) return seen;
  }
}

bool raw_handle_table::state::erase_slowly(handle which) {
  entry& erased = entry_of(which);
  const std::uint64_t before = claim(which, erased, 0);
  if (before == 0) {
    note_miss(which);
    return false;
  }
  if (pins_of(before) != 0) return true;  // the last unpin does the rest
  void* object = object_of(erased);
  free_entry(format.index(which.value), owner_of(before));
  if (released != nullptr) released(context, object);
  return true;
}

// For a thread that cannot run sequences, so that nobody could fence it off: nobody else changes the word meanwhile.
bool raw_handle_table::state::change_alone(entry& changed, std::uint64_t seen, std::uint64_t desired) {
  const base::lock locked(guard);
  const std::uint32_t owner = owner_of(seen);
  const gate before = free.gate_of(owner);
  free.set_gate(owner, gate::stopped);
  os::fence_sequences();
  const bool as_seen = changed.word.load() == seen;
  if (as_seen) changed.word.store(desired);
  free.set_gate(owner, before);
  return as_seen;
}

void raw_handle_table::state::share(std::uint32_t owner) {
  const base::lock locked(guard);
  if (free.gate_of(owner) != gate::biased) return;
  free.set_gate(owner, gate::stopped);
  if (!base::is_mutant(base::mutant::share_without_fence)) os::fence_sequences();
  free.at(owner).unshared_changes.store(0, base::memory_order_relaxed);  // a hint
  free.set_gate(owner, gate::shared);
  shared_lists.add();
}

void raw_handle_table::state::bias(std::uint32_t owner) {
  const base::lock locked(guard);
  if (free.gate_of(owner) != gate::shared) return;
  free.set_gate(owner, gate::stopped);
  if (!base::is_mutant(base::mutant::bias_without_fence)) os::fence_sequences();
  free.set_gate(owner, gate::biased);
}

// Counts changes by the owner without one by another; all relaxed, for it is a hint.
void raw_handle_table::state::note_shared_change(std::uint32_t owner) {
  base::atomic<std::uint32_t>& unshared = free.at(owner).unshared_changes;
  const std::uint32_t before = unshared.load(base::memory_order_relaxed);
  if (free.current() != owner) {
    if (before != 0) unshared.store(0, base::memory_order_relaxed);
  } else if (before + 1 < bias_after) {
    unshared.store(before + 1, base::memory_order_relaxed);
  } else {
    bias(owner);
  }
}

// ---- Free entries ----

void raw_handle_table::state::free_entry(std::uint32_t index, std::uint32_t owner) {
  for (;;) {
    if (free.current() != owner ? free.send(owner, index) : free.put(owner, index)) return;
    const base::lock locked(guard);  // waits until the list is open
    if (free.current() != owner) {
      spare_inbox(owner);
      add_spare(index);  // not sent: a sender that has left a gap may keep the inbox full
      return;
    }
    if (free.is_full(owner)) {
      unload(owner);
    }
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

// ---- Waiting for the last unpin ----

// The entry is claimed, with the waiter's bit. Whoever unpins it last changes its word, then looks for waiters.
void raw_handle_table::state::await_unpin(const entry& claimed) {
  waiter self{claimed, os::parker::current()};
  {
    const base::lock locked(guard);
    self.next = waiters;
    waiters = &self;
  }
  while (pins_of(claimed.word.load()) != 0) self.owner.park();
  const base::lock locked(guard);
  waiter** at = &waiters;
  while (*at != &self) at = &(*at)->next;
  *at = self.next;
}

void raw_handle_table::state::wake_waiter(const entry& unpinned) {
  const base::lock locked(guard);
  for (waiter* at = waiters; at != nullptr; at = at->next) {
    if (&at->awaited == &unpinned) at->owner.unpark();
  }
}

// ---- Figures ----

void raw_handle_table::state::note_miss(handle which) const {
  if (which.value == 0) return;  // "none" is no misuse
  const std::uint32_t index = format.index(which.value);
  const bool forged =
      index >= limit || !entries.is_there(index / entries_per_frame) || which.value >> format.index_bits == 0;
  cpu_list& list = free.at(static_cast<std::uint32_t>(std::max(0, os::sequence_cpu())) % free.count());
  (forged ? list.forged : list.stale).fetch_add(1, base::memory_order_relaxed);  // figures
}

std::size_t raw_handle_table::state::used() const {
  const std::size_t there = entries.entries();
  const std::uint64_t unused = look_around(free.count()).elsewhere + spare_size.value();
  return there > unused ? there - unused : 0;  // while others work, the two are of different instants
}

raw_handle_table::statistics raw_handle_table::state::figures() const {
  const base::lock locked(guard);
  statistics now;
  now.entries = used();
  now.limit = limit;
  now.frames = entries.frames_there();
  now.inserts = free.takes() + direct_inserts.value() - moved.value();
  now.erases = std::max(now.inserts, now.entries) - now.entries;
  now.insert_failures = insert_failures.value();
  for (std::uint32_t list = 0; list < free.count(); ++list) {
    now.stale += free.at(list).stale.load(base::memory_order_relaxed);    // figures
    now.forged += free.at(list).forged.load(base::memory_order_relaxed);  // the same
  }
  now.steals = steals.value();
  now.shared = shared_lists.value();
  now.charged = charge.amount() + free.charged() + entries.charged();
  return now;
}

}  // namespace larder

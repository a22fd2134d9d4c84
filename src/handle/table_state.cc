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

#include "cache/span.h"

namespace larder {

using namespace handle_layer;

namespace {

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
    : os::fork_participant(base::lock_rank::handle_table),
      format(chosen.limit, next_first_generation()),
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
  budget::add_describer(*this, budget);
  os::join_forks(*this);
}

void raw_handle_table::state::before_fork() {
  guard.lock_for_fork();
  free.lock_for_fork();
}

void raw_handle_table::state::in_parent() {
  free.unlock_after_fork();
  guard.unlock_after_fork();
}

void raw_handle_table::state::in_child() {
  waiters = nullptr;  // the parent's
  in_parent();
}

raw_handle_table::state::~state() {
  os::leave_forks(*this);
  budget::remove_describer(*this);
  budget.remove_reclaimer(*this);
}

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

void raw_handle_table::state::describe(memory_account& into) const {
  const base::lock locked(guard);
  const bytes frames = frame_table::frame_charge * entries.frames_there();
  into.handles += frames;
  into.metadata += charge.amount() + free.charged() + entries.charged() - frames;
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

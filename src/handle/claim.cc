// SPDX-License-Identifier: Apache-2.0
//
// Who may change the word of a taken entry: bias, sharing, claims, and waiting for the last unpin (theory:
// table_state.cc).
#include "base/mutant.h"
#include "handle/table_state.h"
#include "os/waiting.h"

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

}  // namespace

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
    if (change(claimed, seen, word_of(~which.value, beside(seen) | more))) return seen;
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
  release_entry(format.index(which.value), owner_of(before));
  return true;
}

void raw_handle_table::state::release_entry(std::uint32_t index, std::uint32_t owner) {
  void* object = object_of(entries.at(index));
  free_entry(index, owner);
  if (released != nullptr) released(context, object);
}

// Nobody acts upon what the gate was when this returns, nor changes the words that it guards before it is set again.
void raw_handle_table::state::stop(std::uint32_t owner, base::mutant without_fence) {
  free.set_gate(owner, gate::stopped);
  if (without_fence == base::mutant::none || !base::is_mutant(without_fence)) os::fence_sequences();
}

// For a thread that cannot run sequences, so that nobody could fence it off: nobody else changes the word meanwhile.
bool raw_handle_table::state::change_alone(entry& changed, std::uint64_t seen, std::uint64_t desired) {
  const base::lock locked(guard);
  const std::uint32_t owner = owner_of(seen);
  const gate before = free.gate_of(owner);
  stop(owner);
  const bool as_seen = changed.word.load() == seen;
  if (as_seen) changed.word.store(desired);
  free.set_gate(owner, before);
  return as_seen;
}

void raw_handle_table::state::share(std::uint32_t owner) {
  const base::lock locked(guard);
  if (free.gate_of(owner) != gate::biased) return;
  stop(owner, base::mutant::share_without_fence);
  free.at(owner).unshared_changes.store(0, base::memory_order_relaxed);  // a hint
  free.set_gate(owner, gate::shared);
  shared_lists.add();
}

void raw_handle_table::state::bias(std::uint32_t owner) {
  const base::lock locked(guard);
  if (free.gate_of(owner) != gate::shared) return;
  stop(owner, base::mutant::bias_without_fence);
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

// The entry is claimed, with the waiter's bit. Whoever unpins it last changes its word, then looks for waiters.
void raw_handle_table::state::await_unpin(const entry& claimed) {
  waiter self{claimed, os::parker::current()};
  {
    const base::lock locked(guard);
    self.next = waiters;
    waiters = &self;
  }
  {
    const auto look = [](const void* object, os::wait_subject& into) {
      into.set_name(static_cast<const state*>(object)->name);
    };
    const os::waiting noted(self.owner, {.kind = "unpin of a handle", .object = this, .look = look});
    while (pins_of(claimed.word.load()) != 0) self.owner.park();
  }
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

}  // namespace larder

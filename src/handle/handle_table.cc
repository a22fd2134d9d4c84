// SPDX-License-Identifier: Apache-2.0
#include <larder/handle_table.h>

#include "base/check.h"
#include "handle/table_state.h"

namespace larder {

using namespace handle_layer;

namespace {

void* pointer(std::uint64_t bits) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(bits)); }

}  // namespace

raw_handle_table::raw_handle_table(std::string_view name, options chosen)
    : state_([&] {
        LARDER_CHECK(chosen.limit >= 1 && chosen.limit <= limit_max && chosen.reservation <= chosen.limit,
                     "handle table \"%s\": limit %zu with reservation %zu; a limit is from 1 to %zu",
                     std::string(name).c_str(), chosen.limit, chosen.reservation, limit_max);
        memory_budget& budget = chosen.budget == nullptr ? memory_budget::process() : *chosen.budget;
        return std::make_unique<state>(name, chosen, budget);
      }()) {}

raw_handle_table::~raw_handle_table() = default;

// The fast paths of insert and erase are a sequence or two each, and whatever else may come is left to a tail call, so
// that nothing is kept for it.

handle raw_handle_table::insert(void* object) {
  LARDER_CHECK(object != nullptr, "handle table \"%s\": insert of null", name().c_str());
  state& table = *state_;
  std::uint32_t cpu;
  if (table.sequences && os::find_sequence_cpu(cpu)) [[likely]] {
    cpu_list& mine = table.free.at(cpu);
    const std::uint64_t taken = mine.taken;
    std::uint32_t index;
    if (table.free.take_in_sequence(cpu, mine, index)) [[likely]]
      return table.use(index, taken, object);
  }
  return table.insert_slowly(object);
}

bool raw_handle_table::erase(handle which) {
  state& table = *state_;
  std::uint32_t cpu;
  if (table.fast_erase && os::find_sequence_cpu(cpu)) [[likely]] {
    cpu_list& mine = table.free.at(cpu);
    const std::uint32_t index = table.format.index(which.value);
    // Taken from this list and not pinned: else the word differs, as it does for a handle that is not in use.
    const std::uint64_t used = mine.taken | which.value;
    const std::uint64_t erased = mine.taken | static_cast<std::uint32_t>(~which.value);
    table.entries.expect_change(index);
    if (os::compare_store(cpu, mine.gate, static_cast<std::uint64_t>(gate::biased), table.entries.at(index).word, used,
                          erased) == os::sequence_result::done) [[likely]] {
      if (table.free.put_in_sequence(cpu, mine, index)) [[likely]]
        return true;
      return table.finish_erase(index, cpu);
    }
  }
  return table.erase_slowly(which);
}

void* raw_handle_table::find(handle which) const {
  const entry& found = state_->entry_of(which);
  // Acquire: the object that the word was stored after; partner: use. "None" is zero, and so is memory without use.
  if (tag_of(found.word.load(base::memory_order_acquire)) == which.value && which.value != 0) [[likely]] {
    // Acquire: if this is the object of a later user, a word at least as new as the erase before is seen below.
    const std::uint64_t object = found.object.load(base::memory_order_acquire);
    if (tag_of(found.word.load(base::memory_order_relaxed)) == which.value) [[likely]]
      return pointer(object);
  }
  state_->note_miss(which);
  return nullptr;
}

void* raw_handle_table::take(handle which) {
  state& table = *state_;
  entry& found = table.entry_of(which);
  const std::uint64_t before = table.claim(which, found, waiter_bit);
  if (before == 0) {
    table.note_miss(which);
    return nullptr;
  }
  if (pins_of(before) != 0) table.await_unpin(found);
  void* object = state::object_of(found);
  table.free_entry(table.format.index(which.value), owner_of(before));
  return object;
}

void* raw_handle_table::pin(handle which) {
  state& table = *state_;
  entry& found = table.entry_of(which);
  for (;;) {
    const std::uint64_t seen = found.word.load(base::memory_order_acquire);  // partner: use
    if (tag_of(seen) != which.value || which.value == 0) {
      table.note_miss(which);
      return nullptr;
    }
    LARDER_CHECK(pins_of(seen) < pins_max, "handle table \"%s\": handle %#x is pinned %u times", name().c_str(),
                 which.value, pins_of(seen));
    // Pinned, the entry keeps its object.
    if (table.change(found, seen, seen + one_pin)) return state::object_of(found);
  }
}

void raw_handle_table::unpin(handle which) {
  state& table = *state_;
  entry& found = table.entry_of(which);
  for (;;) {
    const std::uint64_t seen = found.word.load(base::memory_order_acquire);  // partner: erase
    const bool erased = tag_of(seen) == ~which.value;
    LARDER_CHECK((erased || tag_of(seen) == which.value) && pins_of(seen) > 0,
                 "handle table \"%s\": unpin of handle %#x, which is not pinned", name().c_str(), which.value);
    const bool last = erased && pins_of(seen) == 1;
    const bool awaited = (beside(seen) & waiter_bit) != 0;
    if (!table.change(found, seen, seen - one_pin)) continue;
    if (!last) return;
    if (awaited) {
      if (!base::is_mutant(base::mutant::unpin_without_wake)) table.wake_waiter(found);
      return;
    }
    table.release_entry(table.format.index(which.value), owner_of(seen));
    return;
  }
}

void raw_handle_table::for_each(const std::function<void(handle, void*)>& see) const {
  const state& table = *state_;
  for (std::uint32_t frame = 0; frame < table.entries.frames_max(); ++frame) {
    if (!table.entries.is_there(frame)) continue;
    const std::uint32_t first = frame * entries_per_frame;
    for (std::uint32_t index = first; index < first + table.entries.entries_of(frame); ++index) {
      const entry& here = table.entries.at(index);
      const handle which{tag_of(here.word.load(base::memory_order_acquire))};  // partners: use, grow
      if (!table.format.is_used(index, which.value)) continue;
      const std::uint64_t object = here.object.load(base::memory_order_acquire);  // as in find
      if (tag_of(here.word.load(base::memory_order_relaxed)) == which.value) see(which, pointer(object));
    }
  }
}

std::size_t raw_handle_table::size() const { return state_->used(); }
std::size_t raw_handle_table::limit() const { return state_->limit; }
raw_handle_table::statistics raw_handle_table::stats() const { return state_->figures(); }
const char* raw_handle_table::active_mode() const { return os::sequences_description(); }
void raw_handle_table::audit() const { state_->audit(); }
const std::string& raw_handle_table::name() const { return state_->name; }

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// Entries in frames of a page, found through a directory of frames: two loads. A handle is generation · 2^k + index,
// where k bits hold the limit; generations start at 1, so no handle is 0.
//
// An entry's tag says what it is: the handle by which it is used now, or the complement of the last one. The index bits
// of a complement differ from the entry's own index, so a tag equals a handle that leads to its entry only if the entry
// is used by just that handle. `find` reads tag, object, tag; if both tags are the handle, the object is its own.
//
// Changes are made under one mutex. Freed entries are reused first in, first out, and a new frame's entries join them
// at once: that makes the time until a handle comes again the longest, at least 255 rounds over all free entries.
//
// Laws (audit):
//
//   used + |free list| = entries in frames ≤ limit      (equal to the limit once all frames are there)
//   size = used = inserts − erases
//   an entry is on the free list ⇔ its tag is no handle of its index
//   frames are there without a gap from 0 on, in the directory before their entries are on the free list (KF-24)
#include <algorithm>
#include <bit>
#include <new>

#include <larder/handle_table.h>

#include "base/atomic.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/registry.h"
#include "cache/span.h"

namespace larder {
namespace {

struct entry {
  // Written under the mutex. Release for find's acquire loads, which have to see a tag that is at least as new as the
  // object they saw.
  base::atomic<void*> object;
  base::atomic<std::uint32_t> tag;
  std::uint32_t next_free;  // an index, or no_entry; guarded by the mutex
};
static_assert(sizeof(entry) == 16);

constexpr std::uint32_t no_entry = ~std::uint32_t{0};
constexpr std::size_t entries_per_frame = page_size / sizeof(entry);
constexpr cache::span_shape frame_shape{bytes{page_size}, page_size, bytes{page_size}};

std::size_t frames_for(std::size_t entries) { return (entries + entries_per_frame - 1) / entries_per_frame; }

// A charge that reclaims if need be, but does not wait; throws where there is no room.
budget_charge charge_or_throw(memory_budget& budget, bytes amount) {
  if (!cache::charge_now(budget, amount)) throw std::bad_alloc();
  return {budget, amount};
}

}  // namespace

struct raw_handle_table::state {
  state(std::string_view chosen_name, const options& chosen, memory_budget& charged);
  ~state();

  // The entry at an index that is within the limit; null if its frame is not there.
  entry* entry_at(std::uint32_t index) const {
    // Acquire: the frame's zeroes, and what was written since; partner: add_frame.
    entry* frame = directory[index / entries_per_frame].load(base::memory_order_acquire);
    return frame == nullptr ? nullptr : frame + index % entries_per_frame;
  }
  // The entry that a handle leads to, whoever uses it.
  entry* entry_of(handle which) const {
    const std::uint32_t index = which.value & index_mask;
    return which.value == 0 || index >= limit ? nullptr : entry_at(index);
  }
  bool is_used(std::uint32_t index, std::uint32_t tag) const { return tag != 0 && (tag & index_mask) == index; }
  // The handle after the one that `tag` tells of.
  std::uint32_t next_handle(std::uint32_t index, std::uint32_t tag) const {
    const std::uint32_t last_generation = tag == 0 ? 0 : ~tag >> index_bits;
    const std::uint32_t generation = last_generation == generation_max ? 1 : last_generation + 1;
    return generation << index_bits | index;
  }
  bool add_frame(bool charged);
  void push_free(std::uint32_t index);
  std::size_t entries_in_frames() const { return std::min(frames * entries_per_frame, limit); }
  statistics figures() const;

  const std::string name;
  const std::size_t limit;
  const unsigned index_bits;
  const std::uint32_t index_mask;
  const std::uint32_t generation_max;
  memory_budget& budget;
  const budget_charge directory_charge;
  const std::unique_ptr<base::atomic<entry*>[]> directory;

  mutable base::mutex guard{base::lock_rank::handle_table};
  std::size_t frames = 0;               // guarded by guard, like all that follow
  std::uint32_t first_free = no_entry;  // the free list, from the entry that was freed first
  std::uint32_t last_free = no_entry;
  std::uint64_t inserts = 0;
  std::uint64_t erases = 0;
  std::uint64_t insert_failures = 0;
  base::atomic<std::size_t> used{0};  // written under guard, read without

  base::registration registered;
};

raw_handle_table::state::state(std::string_view chosen_name, const options& chosen, memory_budget& charged)
    : name(chosen_name),
      limit(chosen.limit),
      index_bits(std::max(1U, static_cast<unsigned>(std::bit_width(chosen.limit - 1)))),
      index_mask((std::uint32_t{1} << index_bits) - 1),
      generation_max(~std::uint32_t{0} >> index_bits),
      budget(charged),
      directory_charge(
          charge_or_throw(charged, bytes{frames_for(limit) * sizeof(base::atomic<entry*>) + sizeof(state)})),
      directory(new base::atomic<entry*>[frames_for(limit)]()),
      registered([this, component = "handle_table/" + name](const base::stat_visitor& show) {
        const statistics now = figures();
        show({component, "entries", now.entries});
        show({component, "limit", now.limit});
        show({component, "frames", now.frames});
        show({component, "inserts", now.inserts});
        show({component, "erases", now.erases});
        show({component, "insert_failures", now.insert_failures});
        show({component, "charged_bytes", now.charged.count});
      }) {}

raw_handle_table::state::~state() {
  for (std::size_t number = 0; number < frames; ++number) {
    cache::unmap_span(budget, frame_shape, directory[number].load());
  }
}

// Adds the next frame and its entries to the free list; the guard is held. False if there is no memory.
bool raw_handle_table::state::add_frame(bool charged) {
  const result<void*> mapped =
      charged ? cache::map_charged_span(budget, frame_shape) : cache::map_span(budget, frame_shape);
  if (!mapped) return false;
  // Zeroed memory: tags of entries that were never used.
  directory[frames].store(static_cast<entry*>(*mapped), base::memory_order_release);  // partner: entry_at
  const std::size_t before = entries_in_frames();
  ++frames;
  for (std::size_t index = before; index < entries_in_frames(); ++index) push_free(static_cast<std::uint32_t>(index));
  return true;
}

void raw_handle_table::state::push_free(std::uint32_t index) {
  entry_at(index)->next_free = no_entry;
  if (last_free == no_entry) {
    first_free = index;
  } else {
    entry_at(last_free)->next_free = index;
  }
  last_free = index;
}

raw_handle_table::statistics raw_handle_table::state::figures() const {
  const base::lock locked(guard);
  statistics now;
  now.entries = used.load();
  now.limit = limit;
  now.frames = frames;
  now.inserts = inserts;
  now.erases = erases;
  now.insert_failures = insert_failures;
  now.charged = frame_shape.charge * frames + directory_charge.amount();
  return now;
}

raw_handle_table::raw_handle_table(std::string_view name, options chosen)
    : state_([&] {
        LARDER_CHECK(chosen.limit >= 1 && chosen.limit <= limit_max && chosen.reservation <= chosen.limit,
                     "handle table \"%s\": limit %zu with reservation %zu; a limit is from 1 to %zu",
                     std::string(name).c_str(), chosen.limit, chosen.reservation, limit_max);
        memory_budget& budget = chosen.budget == nullptr ? memory_budget::process() : *chosen.budget;
        auto made = std::make_unique<state>(name, chosen, budget);
        while (made->entries_in_frames() < chosen.reservation) {
          if (!cache::charge_now(budget, frame_shape.charge)) throw std::bad_alloc();
          const base::lock locked(made->guard);
          if (!made->add_frame(true)) throw std::bad_alloc();
        }
        return made;
      }()) {}

raw_handle_table::~raw_handle_table() = default;

handle raw_handle_table::insert(void* object) {
  LARDER_CHECK(object != nullptr, "handle table \"%s\": insert of null", name().c_str());
  state& at = *state_;
  const base::lock locked(at.guard);
  if (at.first_free == no_entry && (at.entries_in_frames() == at.limit || !at.add_frame(false))) {
    ++at.insert_failures;
    return {};
  }
  const std::uint32_t index = at.first_free;
  entry& taken = *at.entry_at(index);
  at.first_free = taken.next_free;
  if (at.first_free == no_entry) at.last_free = no_entry;
  // Relaxed: tags are written under the guard, which is held.
  const handle made{at.next_handle(index, taken.tag.load(base::memory_order_relaxed))};
  taken.object.store(object, base::memory_order_release);   // partner: find's load of the object
  taken.tag.store(made.value, base::memory_order_release);  // partner: find's first load of the tag
  ++at.inserts;
  ++at.used;
  return made;
}

void* raw_handle_table::find(handle which) const {
  const entry* found = state_->entry_of(which);
  if (found == nullptr || found->tag.load(base::memory_order_acquire) != which.value)
    return nullptr;  // partner: insert
  // Acquire: if this is the object of a later user, or the null of an erase, a tag at least that new is seen below.
  void* object = found->object.load(base::memory_order_acquire);
  return found->tag.load(base::memory_order_relaxed) == which.value ? object : nullptr;
}

void* raw_handle_table::take(handle which) {
  state& at = *state_;
  const base::lock locked(at.guard);
  entry* found = at.entry_of(which);
  // Relaxed: tags and objects are written under the guard, which is held.
  if (found == nullptr || found->tag.load(base::memory_order_relaxed) != which.value) return nullptr;
  void* object = found->object.load(base::memory_order_relaxed);
  found->tag.store(~which.value, base::memory_order_release);
  found->object.store(nullptr, base::memory_order_release);  // partner: find's load of the object
  at.push_free(which.value & at.index_mask);
  ++at.erases;
  --at.used;
  return object;
}

void raw_handle_table::for_each(const std::function<void(handle, void*)>& see) const {
  for (std::uint32_t index = 0; index < state_->limit; ++index) {
    const entry* here = state_->entry_at(index);
    if (here == nullptr) return;                                     // frames are there without a gap
    const handle which{here->tag.load(base::memory_order_acquire)};  // partner: insert
    if (!state_->is_used(index, which.value)) continue;
    if (void* object = find(which)) see(which, object);
  }
}

std::size_t raw_handle_table::size() const { return state_->used.load(); }
std::size_t raw_handle_table::limit() const { return state_->limit; }
raw_handle_table::statistics raw_handle_table::stats() const { return state_->figures(); }
const std::string& raw_handle_table::name() const { return state_->name; }

void raw_handle_table::audit() const {
  const state& at = *state_;
  const char* title = at.name.c_str();
  const base::lock locked(at.guard);
  const std::size_t entries = at.entries_in_frames();
  std::size_t used = 0;
  for (std::uint32_t index = 0; index < entries; ++index) {
    LARDER_CHECK(at.entry_at(index) != nullptr, "handle table \"%s\": frame of entry %u is missing", title, index);
    const entry& here = *at.entry_at(index);
    if (!at.is_used(index, here.tag.load())) continue;
    LARDER_CHECK(here.object.load() != nullptr, "handle table \"%s\": entry %u is used, but empty", title, index);
    ++used;
  }
  std::size_t free = 0;
  for (std::uint32_t index = at.first_free; index != no_entry; index = at.entry_at(index)->next_free) {
    LARDER_CHECK(!at.is_used(index, at.entry_at(index)->tag.load()),
                 "handle table \"%s\": entry %u is used and on the free list", title, index);
    LARDER_CHECK(++free <= entries, "handle table \"%s\": the free list does not end", title);
    LARDER_CHECK(at.entry_at(index)->next_free != no_entry || index == at.last_free,
                 "handle table \"%s\": the free list ends at entry %u, not at the last", title, index);
  }
  LARDER_CHECK(used + free == entries, "handle table \"%s\": %zu used and %zu free of %zu entries", title, used, free,
               entries);
  LARDER_CHECK(used == at.used.load() && at.inserts - at.erases == used,
               "handle table \"%s\": %zu entries counted, %llu inserted, %llu erased, but %zu used", title,
               at.used.load(), static_cast<unsigned long long>(at.inserts), static_cast<unsigned long long>(at.erases),
               used);
}

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <larder/handle_table.h>

#include "base/atomic.h"
#include "base/counter.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "base/registry.h"
#include "budget/account.h"
#include "handle/entry.h"
#include "handle/frame_table.h"
#include "handle/free_list.h"
#include "os/fork.h"
#include "os/parker.h"

namespace larder {

struct raw_handle_table::state final : reclaimer, os::fork_participant, budget::describer {
  state(std::string_view chosen_name, const options& chosen, memory_budget& charged);
  ~state() override;

  void before_fork() override;
  void in_parent() override;
  void in_child() override;

  // The entry that a handle leads to, whoever uses it.
  handle_layer::entry& entry_of(handle which) const { return entries.at(format.index(which.value)); }

  // Inserts into an entry that is the caller's; `taken` says from which list.
  handle use(std::uint32_t index, std::uint64_t taken, void* object) {
    handle_layer::entry& used = entries.at(index);
    // Relaxed: the entry is this thread's.
    const std::uint32_t last = handle_layer::tag_of(used.word.load(base::memory_order_relaxed));
    const handle made{format.next_handle(last)};
    const std::uint64_t word = taken | made.value;
    if (base::is_mutant(base::mutant::word_before_object)) used.word.store(word);
    const auto bits = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(object));
    used.object.store(bits, base::memory_order_release);  // partner: find's load of the object
    used.word.store(word, base::memory_order_release);    // partner: find's first load
    return made;
  }
  static void* object_of(const handle_layer::entry& held) {
    // Relaxed: the entry is this thread's, or pinned.
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(held.object.load(base::memory_order_relaxed)));
  }

  // What the fast paths fall to: anything that is not all done by two sequences.
  handle insert_slowly(void* object);
  bool erase_slowly(handle which);
  void free_entry(std::uint32_t index, std::uint32_t owner);
  // The same, and tells that its object is not needed any more.
  void release_entry(std::uint32_t index, std::uint32_t owner);
  // The same as free_entry, for the tail of a fast erase.
  bool finish_erase(std::uint32_t index, std::uint32_t owner);

  // Compare-and-swap of a used or pinned entry's word, as its owner's gate allows.
  bool change(handle_layer::entry& changed, std::uint64_t seen, std::uint64_t desired);
  // Changes the word from used to erased, with `more` set beside the tag. Its word before; 0 if the handle is stale.
  std::uint64_t claim(handle which, handle_layer::entry& claimed, std::uint32_t more);

  // Parks until a claimed entry is not pinned any more.
  void await_unpin(const handle_layer::entry& claimed);
  void wake_waiter(const handle_layer::entry& unpinned);

  void note_miss(handle which) const;
  std::size_t shrink(std::size_t frames_most);
  bytes reclaim(bytes wanted) override;
  std::size_t used() const;
  statistics figures() const;
  void describe(memory_account& into) const override;
  void audit() const;

  // In the order in which the fast paths need them.
  const handle_layer::handle_format format;
  handle_layer::frame_table entries;
  handle_layer::free_lists free;
  const bool sequences;   // whether per-CPU state is changed in restartable sequences
  const bool fast_erase;  // and there is nobody to be told of an erase
  void (*const released)(void* context, void* object);
  void* const context;

  const std::string name;
  const std::size_t limit;
  const std::size_t frames_reserved;
  memory_budget& budget;
  const budget_charge charge;  // for this

  // Guards what comes and goes between lists: frames, steals, gates, and what an insert fails under.
  mutable base::mutex guard{base::lock_rank::handle_table};
  struct waiter {
    const handle_layer::entry& awaited;
    os::parker& owner;
    waiter* next = nullptr;
  };
  waiter* waiters = nullptr;           // guarded by guard, like all that follow
  handle_layer::chain spare;           // free entries of no CPU
  base::owned_counter spare_size;      // read without the guard
  base::owned_counter moved;           // entries that left a ring, but not for an insert
  base::owned_counter direct_inserts;  // of entries that came from no ring
  base::owned_counter steals;
  base::owned_counter shared_lists;
  base::counter insert_failures;  // any thread

  base::registration registered;

 private:
  struct taken_entry {
    std::uint32_t index = 0;
    std::uint32_t owner = 0;
  };
  enum class found : unsigned char { entry, nothing, no_memory };
  found search(bool& charged, taken_entry& result);
  void use_spare(std::uint32_t list, taken_entry& result);
  void grow(bool& charged, found& refusal);
  void steal(std::uint32_t victim);
  bool take_sent(std::uint32_t list, taken_entry& result);
  void spare_inbox(std::uint32_t list);
  void unload(std::uint32_t list);
  void add_spare(std::uint32_t index);
  std::uint32_t remove_spare();
  // How many entries a list has, and how many the others have; and the fullest of these.
  struct overview {
    std::uint64_t here = 0;
    std::uint64_t elsewhere = 0;
    std::uint32_t fullest = 0;
  };
  overview look_around(std::uint32_t list) const;

  void sort_by_frames();
  void sort(handle_layer::chain taken);
  bool retire(std::uint32_t frame);
  void close_all(bool closed);

  bool change_alone(handle_layer::entry& changed, std::uint64_t seen, std::uint64_t desired);
  void stop(std::uint32_t owner, base::mutant without_fence = base::mutant::none);
  void share(std::uint32_t owner);
  void bias(std::uint32_t owner);
  void note_shared_change(std::uint32_t owner);
  void wait_until_open() const { const base::lock opened(guard); }

  void audit_free(std::uint32_t index, std::vector<bool>& seen) const;
  std::uint64_t audit_chain(handle_layer::chain from, std::vector<bool>& seen) const;
  std::uint64_t audit_taken(std::uint32_t index) const;
};

}  // namespace larder

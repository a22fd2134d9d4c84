// SPDX-License-Identifier: Apache-2.0
#include "handle/free_list.h"

#include <bit>
#include <new>

#include "base/check.h"
#include "base/mutant.h"
#include "cache/span.h"
#include "os/cpu.h"

namespace larder::handle_layer {
namespace {

// A frame's worth of entries in a CPU's ring makes going to the table's mutex rare; of a small table, a CPU should not
// hold more than a share.
constexpr std::size_t ring_size_max = entries_per_frame;
constexpr std::size_t ring_size_min = 16;

std::uint64_t ring_size_for(std::size_t limit) {
  return std::clamp(std::bit_ceil(limit / 4), ring_size_min, ring_size_max);
}

// The kernel may know more CPUs than a word can name owners; then no number is safe to index with.
bool can_number_cpus() { return os::possible_cpus() <= static_cast<int>(owners_max); }

std::uint32_t lists_for_cpus() {
  return can_number_cpus() ? static_cast<std::uint32_t>(std::max(1, os::possible_cpus())) : owners_max;
}

std::size_t lists_size(std::uint32_t lists, std::uint64_t ring_size, bool sequences) {
  return lists * (sizeof(cpu_list) + 2 * ring_size * sizeof(std::uint32_t) + (sequences ? 0 : sizeof(base::mutex)));
}

}  // namespace

free_lists::free_lists(memory_budget& budget, const frame_table& entries, std::size_t limit)
    : entries_(entries),
      sequences_(os::sequences() != os::sequence_mode::sharded && can_number_cpus()),
      count_(lists_for_cpus()),
      ring_mask_(ring_size_for(limit) - 1),
      charge_(cache::charge_or_throw(budget, bytes{lists_size(count_, ring_mask_ + 1, sequences_)})),
      lists_(new cpu_list[count_]),
      rings_(new base::atomic<std::uint32_t>[std::size_t{2} * count_ * (ring_mask_ + 1)]()),
      locks_(sequences_ ? nullptr : new list_lock[count_]) {
  for (std::uint32_t list = 0; list < count_; ++list) {
    at(list).ring = &rings_[std::size_t{list} * 2 * (ring_mask_ + 1)];
    at(list).inbox = &rings_[(std::size_t{list} * 2 + 1) * (ring_mask_ + 1)];
    at(list).taken = taken_by(list);
    // Without sequences nobody can be fenced off.
    if (!sequences_) set_gate(list, gate::shared);
  }
}

bool free_lists::take(std::uint32_t list, std::uint32_t& index) {
  if (list >= count_) return false;
  return sequences_ ? take_in_sequence(list, at(list), index) : take_locked(list, index);
}

bool free_lists::put(std::uint32_t list, std::uint32_t index) {
  if (list >= count_) return false;
  return sequences_ ? put_in_sequence(list, at(list), index) : put_locked(list, index);
}

void free_lists::lock_for_fork() {
  for (std::uint32_t list = 0; !sequences_ && list < count_; ++list) locks_[list].guard.lock_for_fork();
}

void free_lists::unlock_after_fork() {
  for (std::uint32_t list = 0; !sequences_ && list < count_; ++list) locks_[list].guard.unlock_after_fork();
}

bool free_lists::take_locked(std::uint32_t list, std::uint32_t& index) {
  cpu_list& mine = at(list);
  const base::lock locked(locks_[list].guard);
  const std::uint64_t head = mine.head.load(base::memory_order_relaxed);  // guarded, like the tail
  if (head == mine.tail.load(base::memory_order_relaxed)) return false;
  index = ring_entry(list, head);
  mine.head.store(head + 1);
  return true;
}

bool free_lists::put_locked(std::uint32_t list, std::uint32_t index) {
  cpu_list& mine = at(list);
  const base::lock locked(locks_[list].guard);
  const std::uint64_t tail = mine.tail.load(base::memory_order_relaxed);  // guarded, like the head
  if (tail - mine.head.load(base::memory_order_relaxed) > ring_mask_) return false;
  mine.ring[tail & ring_mask_].store(index, base::memory_order_relaxed);
  mine.tail.store(tail + 1);
  return true;
}

bool free_lists::send(std::uint32_t list, std::uint32_t index) {
  cpu_list& owner = at(list);
  std::uint64_t tail =
      owner.inbox_tail.load(base::memory_order_relaxed);  // only a guess: the compare-and-swap proves it
  do {
    // Acquire: whoever emptied the place has cleared it; partner: empty_inbox.
    if (tail - owner.inbox_head.load(base::memory_order_acquire) > ring_mask_) return false;
  } while (!owner.inbox_tail.compare_exchange_weak(tail, tail + 1, base::memory_order_relaxed));
  owner.inbox[tail & ring_mask_].store(link_to(index), base::memory_order_release);  // partner: empty_inbox
  return true;
}

// Places that were taken, but not filled, are not counted: their erase has not returned.
std::uint64_t free_lists::inbox_length(std::uint32_t list) const {
  const cpu_list& mine = at(list);
  const std::uint64_t head = mine.inbox_head.load();
  const std::uint64_t tail = mine.inbox_tail.load();
  std::uint64_t filled = 0;
  for (std::uint64_t position = head; position < tail; ++position) {
    const std::uint32_t content = mine.inbox[position & ring_mask_].load();
    if (content != 0 && content != was_taken) ++filled;
  }
  return filled;
}

chain free_lists::take_share(std::uint32_t list, std::uint64_t size) {
  cpu_list& victim = at(list);
  base::unique_lock locked = sequences_ ? base::unique_lock() : base::unique_lock(locks_[list].guard);
  std::uint64_t head = victim.head.load();
  const std::uint64_t end = std::min(head + size, victim.tail.load());
  chain share;
  for (; head < end; ++head) add(share, ring_entry(list, head));
  if (!base::is_mutant(base::mutant::stolen_share_kept)) victim.head.store(head);
  return share;
}

std::uint64_t free_lists::ring_length(std::uint32_t list) const {
  for (;;) {
    const std::uint64_t head = at(list).head.load();
    const std::uint64_t tail = at(list).tail.load();
    if (at(list).head.load() == head) return tail - head;
  }
}

std::uint64_t free_lists::takes() const {
  std::uint64_t sum = 0;
  for (std::uint32_t list = 0; list < count_; ++list) sum += at(list).head.load();
  return sum;
}

}  // namespace larder::handle_layer

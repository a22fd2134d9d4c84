// SPDX-License-Identifier: Apache-2.0
//
// A CPU's free entries: a ring of their indices, taken at its head and put at its tail, so that entries are reused in
// turns and a handle's generations last long. The CPU's own threads do that in restartable sequences with one commit
// each, to `head` or `tail`. Both only ever grow, so a sequence that finds its counter unchanged knows that nothing was
// taken, or put, since it looked.
//
// Whoever frees an entry of this CPU elsewhere sends it to the inbox, a ring as well: a sender takes a place by
// compare-and-swap, then fills it. Under the table's mutex it is emptied whole; places that are taken but not yet
// filled are passed over, and what was taken from behind them leaves a mark (KF-23). A thief takes from the head of the
// first ring, once it has closed the list and fenced, so that no sequence is in progress or can begin: two consumers
// that do not exclude each other are what broke the ancestor (KF-21). What moves between lists moves under the table's
// mutex, so that nothing is on its way while somebody looks at all lists.
//
// Without sequences a lock for each list takes their place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "base/atomic.h"
#include "base/mutant.h"
#include "base/mutex.h"
#include "handle/entry.h"
#include "handle/frame_table.h"
#include "os/cpu_sequence.h"

namespace larder::handle_layer {

// Who may change the words of entries that were taken from a list (table_state.cc). Changed under the table's mutex.
enum class gate : std::uint64_t {
  biased,   // the list's CPU, by plain stores
  shared,   // everybody, by compare-and-swap
  stopped,  // nobody
};

// Three lines: what the CPU itself writes all the time, what is hardly ever written, and what others write.
struct alignas(64) cpu_list {
  base::atomic<std::uint64_t> closed{0};  // not 0 while the holder of the table's mutex has the ring
  base::atomic<std::uint64_t> head{0};    // entries taken from the ring so far
  base::atomic<std::uint64_t> tail{0};    // entries put on it so far; at most a ring's size more
  base::atomic<std::uint32_t>* ring = nullptr;
  std::uint64_t taken = 0;  // taken_by() of this list

  alignas(64) base::atomic<std::uint64_t> gate{static_cast<std::uint64_t>(handle_layer::gate::biased)};
  base::atomic<std::uint64_t> stale{0};   // handles that were not found; relaxed, a figure
  base::atomic<std::uint64_t> forged{0};  // those among them that no insert can have made

  alignas(64) base::atomic<std::uint64_t> inbox_head{0};  // places emptied so far; written under the table's mutex
  base::atomic<std::uint64_t> inbox_tail{0};              // places taken by senders so far
  base::atomic<std::uint32_t>* inbox = nullptr;           // an index plus one, 0 for nothing yet
  base::atomic<std::uint32_t> unshared_changes{0};        // in a row, by this CPU, while shared; a hint
};
static_assert(sizeof(cpu_list) == 192);

// Entries that hang together by the links in their words. Whoever holds the chain holds them.
struct chain {
  link first = no_link;
  std::uint64_t size = 0;
};

class free_lists {
 public:
  // Throws std::bad_alloc if the budget has no room for the lists; reclaims, but does not wait.
  free_lists(memory_budget& budget, const frame_table& entries, std::size_t limit);
  free_lists(const free_lists&) = delete;
  free_lists& operator=(const free_lists&) = delete;

  // The list of the CPU that this thread runs on; none (count() or more) in a thread that cannot run sequences.
  std::uint32_t current() const {
    const auto number = static_cast<std::uint32_t>(os::sequence_cpu());
    return sequences_ ? number : number % count_;
  }
  cpu_list& at(std::uint32_t list) const { return lists_[list]; }
  std::uint32_t count() const { return count_; }
  bool has_sequences() const { return sequences_; }

  // Takes an entry from the thread's own list. False if that is empty, closed, or not the thread's any more.
  bool take(std::uint32_t list, std::uint32_t& index);
  // Puts an entry that the caller holds on the thread's own list. False if that is full, closed, or not its any more.
  bool put(std::uint32_t list, std::uint32_t index);
  // The same where it is known that there are sequences; `mine` is the CPU's list.
  bool take_in_sequence(std::uint32_t cpu, cpu_list& mine, std::uint32_t& index);
  bool put_in_sequence(std::uint32_t cpu, cpu_list& mine, std::uint32_t index);
  // Sends an entry that the caller holds to any list. False if its inbox is full.
  bool send(std::uint32_t list, std::uint32_t index);
  bool is_full(std::uint32_t list) const { return ring_length(list) > ring_mask_; }
  // How many entries a list moves to or from elsewhere at a time, so that this is rare however it goes on.
  std::uint64_t batch() const { return (ring_mask_ + 1) / 2; }

  // How many entries a list has, at some instant; exact if nobody uses it.
  std::uint64_t ring_length(std::uint32_t list) const;
  std::uint64_t inbox_length(std::uint32_t list) const;
  std::uint64_t length(std::uint32_t list) const { return ring_length(list) + inbox_length(list); }
  // How many entries have been taken from all rings so far.
  std::uint64_t takes() const;
  // The ring's entry, counted from the beginning of time.
  std::uint32_t ring_entry(std::uint32_t list, std::uint64_t number) const {
    // Relaxed: whoever read the counters knows whether it is there.
    return at(list).ring[number & ring_mask_].load(base::memory_order_relaxed);
  }
  bytes charged() const { return charge_.amount(); }

  link next_of(link at) const {
    // Relaxed: whoever holds the entry or its chain has acquired it.
    return beside(entries_.at(index_of(at)).word.load(base::memory_order_relaxed));
  }
  // Puts an entry that the caller holds on a chain that they hold.
  void add(chain& to, std::uint32_t index) const {
    link_entry(index, to.first);
    to = {link_to(index), to.size + 1};
  }
  std::uint32_t remove_first(chain& from) const {
    const std::uint32_t index = index_of(from.first);
    from = {next_of(from.first), from.size - 1};
    return index;
  }

  // In an inbox: an entry that was taken from behind a place that was not filled yet.
  static constexpr std::uint32_t was_taken = ~std::uint32_t{0};

  // Keeps the lists as they are while the process forks: sequences commit by one store, others hold a list's lock.
  void lock_for_fork();
  void unlock_after_fork();

  // All that follow are called under the table's mutex.

  // Calls `take(index)` for each entry that was sent to the list.
  template <typename Take>
  void empty_inbox(std::uint32_t list, Take&& take);
  // The first `size` entries of a ring, or what there is. With sequences, the list is closed and fenced.
  chain take_share(std::uint32_t list, std::uint64_t size);
  void close(std::uint32_t list) { at(list).closed.store(1); }
  void open(std::uint32_t list) { at(list).closed.store(0); }  // publishes what was done to the sequences that follow

  gate gate_of(std::uint32_t list) const {
    return static_cast<gate>(at(list).gate.load(base::memory_order_acquire));  // partner: set_gate
  }
  void set_gate(std::uint32_t list, gate to) {
    at(list).gate.store(static_cast<std::uint64_t>(to), base::memory_order_release);  // partner: gate_of, the sequences
  }

 private:
  bool take_locked(std::uint32_t list, std::uint32_t& index);
  bool put_locked(std::uint32_t list, std::uint32_t index);
  void link_entry(std::uint32_t index, link next) const {
    base::atomic<std::uint64_t>& word = entries_.at(index).word;
    // Relaxed: the entry is the caller's, and its tag does not change; whoever hands the chain on releases it.
    word.store(word_of(tag_of(word.load(base::memory_order_relaxed)), next), base::memory_order_relaxed);
  }

  const frame_table& entries_;
  const bool sequences_;
  const std::uint32_t count_;
  const std::uint64_t ring_mask_;  // its size, a power of two, less one
  const budget_charge charge_;
  const std::unique_ptr<cpu_list[]> lists_;
  const std::unique_ptr<base::atomic<std::uint32_t>[]> rings_;  // of all lists, and their inboxes
  // In the place of sequences: a lock for each list.
  struct list_lock {
    base::mutex guard{base::lock_rank::handle_list};
  };
  const std::unique_ptr<list_lock[]> locks_;
};

[[gnu::always_inline]] inline bool free_lists::take_in_sequence(std::uint32_t cpu, cpu_list& mine,
                                                                std::uint32_t& index) {
  // Relaxed: what this thread reads was written on its own CPU, or by whoever closed the list and fenced.
  const std::uint64_t head = mine.head.load(base::memory_order_relaxed);
  if (head == mine.tail.load(base::memory_order_relaxed)) [[unlikely]]
    return false;
  // If nobody takes it before the commit, nobody has put another in its place.
  index = mine.ring[head & ring_mask_].load(base::memory_order_relaxed);
  return os::compare_store(cpu, mine.closed, 0, mine.head, head, head + 1) == os::sequence_result::done;
}

[[gnu::always_inline]] inline bool free_lists::put_in_sequence(std::uint32_t cpu, cpu_list& mine, std::uint32_t index) {
  // Relaxed, as above. The head may have gone on, which only makes more room.
  const std::uint64_t head = mine.head.load(base::memory_order_relaxed);
  const std::uint64_t tail = mine.tail.load(base::memory_order_relaxed);
  if (tail - head > ring_mask_) [[unlikely]]
    return false;
  return os::compare_store(cpu, mine.closed, 0, mine.tail, tail, tail + 1, mine.ring[tail & ring_mask_], index) ==
         os::sequence_result::done;
}

template <typename Take>
void free_lists::empty_inbox(std::uint32_t list, Take&& take) {
  cpu_list& mine = at(list);
  const std::uint64_t end = mine.inbox_tail.load(base::memory_order_relaxed);  // what comes later comes later
  std::uint64_t head = mine.inbox_head.load(base::memory_order_relaxed);       // written under the mutex, held here
  for (std::uint64_t position = head; position < end; ++position) {
    base::atomic<std::uint32_t>& place = mine.inbox[position & ring_mask_];
    const std::uint32_t content = place.load(base::memory_order_acquire);  // partner: send
    if (content == 0) {
      if (position == head && base::is_mutant(base::mutant::gap_forgotten)) ++head;
      continue;
    }
    if (content != was_taken) take(index_of(content));
    if (position == head) ++head;
    // Relaxed: read again under the mutex, or by a sender that has seen the head go by.
    place.store(position < head ? 0 : was_taken, base::memory_order_relaxed);
  }
  mine.inbox_head.store(head, base::memory_order_release);  // partner: send
}

}  // namespace larder::handle_layer

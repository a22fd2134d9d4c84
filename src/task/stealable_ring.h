// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/atomic.h"
#include "base/mutant.h"

namespace larder::task_layer {

// A bounded queue, first in, first out, of pointers: its owner adds and takes, others take half of what is there (the
// run queue of the Go scheduler has this shape).
//
// `head_` and `tail_` count for ever: an element is in the ring exactly from the store of `tail_` that passes it to the
// compare-and-swap of `head_` that passes it, and belongs to whoever made that. What a thief has read before its
// compare-and-swap counts only if that succeeds: the owner writes to a place only after it has seen the head beyond.
template <typename T, std::size_t Capacity>
class stealable_ring {
  static_assert(std::has_single_bit(Capacity));

 public:
  stealable_ring() = default;
  stealable_ring(const stealable_ring&) = delete;
  stealable_ring& operator=(const stealable_ring&) = delete;

  // The owner's. False if there is no room.
  bool push(T& last) {
    const std::uint64_t tail = tail_.load(base::memory_order_relaxed);  // the owner's own
    // Acquire: a thief has read the place that is written next; partner: its compare-and-swap.
    if (tail - head_.load(base::memory_order_acquire) == Capacity) return false;
    place(tail).store(&last, base::memory_order_relaxed);
    tail_.store(tail + 1, base::memory_order_release);  // publishes the element to the thieves' acquire
    return true;
  }

  // The owner's. Null if there is none.
  T* pop() {
    const std::uint64_t tail = tail_.load(base::memory_order_relaxed);  // the owner's own
    std::uint64_t head = head_.load(base::memory_order_relaxed);        // only a guess: the compare-and-swap proves it
    while (head != tail) {
      T* first = place(head).load(base::memory_order_relaxed);  // the owner's own store
      if (base::is_mutant(base::mutant::pop_without_exchange)) {
        head_.store(head + 1, base::memory_order_relaxed);
        return first;
      }
      if (head_.compare_exchange_weak(head, head + 1, base::memory_order_acq_rel, base::memory_order_relaxed)) {
        return first;
      }
    }
    return nullptr;
  }

  // Any other thread's: takes half of the elements, one at least, `limit` at most; oldest first. 0 if there is none, or
  // if others were faster.
  std::size_t take_half(T** into, std::size_t limit) {
    std::uint64_t head = head_.load(base::memory_order_acquire);
    const std::uint64_t tail = tail_.load(base::memory_order_acquire);  // partner: push's release
    // The head may be an old one: then the difference is too large, and the compare-and-swap fails.
    const std::uint64_t there = std::min<std::uint64_t>(tail - head, Capacity);
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(there - there / 2, limit));
    for (std::size_t i = 0; i < count; ++i) into[i] = place(head + i).load(base::memory_order_relaxed);
    if (base::is_mutant(base::mutant::steal_by_store)) {
      head_.store(head + count);
      return count;
    }
    // Release: the places have been read; partner: push's acquire.
    if (count == 0 || !head_.compare_exchange_strong(head, head + count, base::memory_order_acq_rel)) return 0;
    return count;
  }

  // Any thread's, a moment ago. Sequentially consistent: see run_queue.cc.
  std::size_t size() const {
    const std::uint64_t head = head_.load();
    const std::uint64_t tail = tail_.load();
    return tail > head ? static_cast<std::size_t>(tail - head) : 0;
  }
  // How many have been taken, ever: stays the same while nobody takes any.
  std::uint64_t taken() const { return head_.load(); }
  // The owner's: what it has pushed is seen by everybody before what it loads next is read.
  void publish() { tail_.store(tail_.load(base::memory_order_relaxed)); }

 private:
  base::atomic<T*>& place(std::uint64_t count) { return places_[count & (Capacity - 1)]; }

  base::atomic<std::uint64_t> head_{0};
  base::atomic<std::uint64_t> tail_{0};
  std::array<base::atomic<T*>, Capacity> places_{};
};

}  // namespace larder::task_layer

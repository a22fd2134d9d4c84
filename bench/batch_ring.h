// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "base/atomic.h"

namespace larder::bench {

// Passes names from one thread to one other, a batch at a time, through a ring of a few batches. A batch is filled and
// read where it stands.
template <typename Name>
class batch_ring {
 public:
  static constexpr std::size_t batch_size = 64;
  using batch = std::array<Name, batch_size>;

  // The next batch to fill; waits while the ring is full.
  batch& begin_send() {
    // Acquire: partner is end_receive, so that a batch is filled again after it was read.
    wait_until([&] { return sent_ - received_.load(base::memory_order_acquire) < batches; });
    return ring_[sent_ % batches];
  }
  void end_send() {
    published_.store(++sent_, base::memory_order_release);  // partner: begin_receive
  }
  // No batch follows.
  void close() { closed_ = true; }

  // The oldest batch; null when the ring is closed and empty.
  const batch* begin_receive() {
    bool closed = false;
    // Acquire: partner is end_send. `closed_` is read first: what was sent before it is seen.
    wait_until([&] {
      closed = closed_.load();
      return closed || published_.load(base::memory_order_acquire) != taken_;
    });
    if (closed && published_.load() == taken_) return nullptr;
    return &ring_[taken_ % batches];
  }
  void end_receive() {
    received_.store(++taken_, base::memory_order_release);  // partner: begin_send
  }

 private:
  static constexpr std::uint64_t batches = 16;

  template <typename Condition>
  static void wait_until(Condition holds) {
    for (int looks = 1; !holds(); ++looks) {
      if (looks % 100 == 0) {
        std::this_thread::yield();  // the other one may need this CPU
      } else {
        _mm_pause();
      }
    }
  }

  std::array<batch, batches> ring_{};
  alignas(64) base::atomic<std::uint64_t> published_{0};  // by the sender
  std::uint64_t sent_ = 0;
  base::atomic<bool> closed_{false};
  alignas(64) base::atomic<std::uint64_t> received_{0};  // by the receiver
  std::uint64_t taken_ = 0;
};

}  // namespace larder::bench

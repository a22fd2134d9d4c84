// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/atomic.h"

namespace larder::task_layer {

// A task's name, which it may change while reports read it. A version that is odd while the name is written, and new
// afterwards, tells a reader whether it has read one name, as in os/wait_note.h.
class task_name {
 public:
  static constexpr std::size_t length_max = 31;
  static constexpr const char* unnamed = "task";

  // By the task.
  void set(std::string_view text) {
    std::array<std::uint64_t, words> fresh{};
    std::memcpy(fresh.data(), text.data(), std::min(text.size(), length_max));
    const std::uint64_t next = (word_.load(base::memory_order_relaxed) & ~named) + writing;  // its own
    word_.store(next, base::memory_order_relaxed);
    // Release: who sees a new part sees that it is being written.
    for (std::size_t i = 0; i < words; ++i) text_[i].store(fresh[i], base::memory_order_release);
    word_.store(next + writing + named, base::memory_order_release);
  }
  // Before the task's next use, when nobody else changes it.
  void reset() {
    const std::uint64_t now = word_.load(base::memory_order_relaxed);
    if ((now & named) != 0) word_.store(now - named, base::memory_order_relaxed);
  }
  // For the task itself, while it is not set anew.
  const char* text() const {
    return (word_.load(base::memory_order_relaxed) & named) != 0 ? reinterpret_cast<const char*>(text_.data())
                                                                 : unnamed;
  }
  // Any thread.
  std::string read() const {
    for (int tries = 0; tries < 100; ++tries) {
      const std::uint64_t before = word_.load(base::memory_order_acquire);
      if ((before & writing) != 0) continue;
      if ((before & named) == 0) break;
      std::array<std::uint64_t, words> seen;
      for (std::size_t i = 0; i < words; ++i) seen[i] = text_[i].load(base::memory_order_acquire);
      if (word_.load(base::memory_order_relaxed) != before) continue;
      return reinterpret_cast<const char*>(seen.data());
    }
    return unnamed;  // or it is renamed all the time
  }

 private:
  static constexpr std::size_t words = (length_max + 1) / sizeof(std::uint64_t);
  static constexpr std::uint64_t named = 1;
  static constexpr std::uint64_t writing = 2;  // of a count of beginnings and ends, the lowest bit

  base::passive_atomic<std::uint64_t> word_{0};
  std::array<base::passive_atomic<std::uint64_t>, words> text_{};
};

}  // namespace larder::task_layer

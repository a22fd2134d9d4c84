// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include <larder/result.h>
#include <larder/units.h>

#include "base/mutex.h"
#include "page/file.h"
#include "page/frame_arena.h"

namespace larder::page {

// The hash table from (file, page number) to frames: buckets of four bytes, chained through the frames.
//
// Looking up and pinning takes no lock. A walk may meet frames that are being moved; it proves what it found by pinning
// it and then reading the key again, and when it finds nothing it has proved nothing: the caller looks again under the
// mutex of the bucket's stripe, where links change.
class page_table {
 public:
  explicit page_table(const frame_arena& arena) : arena_(arena) {}
  ~page_table();
  page_table(const page_table&) = delete;
  page_table& operator=(const page_table&) = delete;

  static bytes length_for(std::uint32_t frames_max);
  // Once, before anything else. ENOMEM.
  result<void> reserve(std::uint32_t frames_max);

  struct found {
    frame* page = nullptr;  // pinned once more; null: look again under the stripe's mutex
    state_word before = 0;  // its state just before
    frame* undo = nullptr;  // a frame pinned in error, for the caller to unpin
  };
  found find_and_pin(const file& owner, std::uint64_t number) const;

  base::mutex& stripe(const file& owner, std::uint64_t number) const {
    return stripes_[bucket_of(owner, number) % stripes_count].guard;
  }
  // A frame that held the page at some instant of the call, not pinned; null proves nothing.
  frame* look_up(const file& owner, std::uint64_t number) const;
  // Relaxed: right while the frame is pinned, or as far as its generation says so. One branch for both.
  static bool holds(const frame& at, const file& owner, std::uint64_t number) {
    const auto address = [](const file* of) { return reinterpret_cast<std::uintptr_t>(of); };
    return ((at.number.load(base::memory_order_relaxed) ^ number) |
            (address(at.owner.load(base::memory_order_relaxed)) ^ address(&owner))) == 0;
  }
  // With the stripe's mutex held. `link` takes a frame whose key is set.
  frame* find(const file& owner, std::uint64_t number) const;
  void link(frame& page);
  void unlink(frame& page);
  // Takes and leaves every stripe's mutex: what was linked before is seen after.
  void synchronize() const;

 private:
  // Enough that on as many CPUs two misses seldom meet; a power of two.
  static constexpr std::uint32_t stripes_count = 64;
  // More than any chain in a table with a bucket a frame is likely to be long; past it a walk has gone astray.
  static constexpr int steps_max = 64;

  struct alignas(64) stripe_lock {
    base::mutex guard{base::lock_rank::page_bucket};
  };

  std::uint32_t bucket_of(const file& owner, std::uint64_t number) const {
    // Fibonacci hashing spreads consecutive pages; the product's high half scales to any number of buckets.
    const std::uint64_t hash = ((number + owner.salt) * 0x9E3779B97F4A7C15U) >> 32;
    return static_cast<std::uint32_t>((hash * buckets_count_) >> 32);
  }

  // Goes on with a walk.
  frame* look_behind(const frame& first, const file& owner, std::uint64_t number) const;

  const frame_arena& arena_;
  base::atomic<frame_index>* buckets_ = nullptr;  // each written under its stripe's mutex
  std::uint32_t buckets_count_ = 0;
  mutable std::array<stripe_lock, stripes_count> stripes_;
};

// In the header, as the rest of a hit's path, which has no call in it where a page is the first of its bucket.
inline frame* page_table::look_up(const file& owner, std::uint64_t number) const {
  const frame_index index = buckets_[bucket_of(owner, number)].load(base::memory_order_acquire);
  if (index == no_frame) [[unlikely]]
    return nullptr;
  frame& first = arena_.at(index);
  if (!holds(first, owner, number)) [[unlikely]]
    return look_behind(first, owner, number);
  return &first;
}

inline page_table::found page_table::find_and_pin(const file& owner, std::uint64_t number) const {
  frame* at = look_up(owner, number);
  if (at == nullptr) [[unlikely]]
    return {};
  const state_word before = at->state.fetch_add(one_pin, base::memory_order_acquire);
  if ((before & unused) != 0) [[unlikely]]
    return {.undo = at};
  if (!holds(*at, owner, number)) [[unlikely]]
    return {.undo = at};
  return {.page = at, .before = before};
}

}  // namespace larder::page

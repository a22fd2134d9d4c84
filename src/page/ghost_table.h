// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "page/frame_arena.h"

namespace larder::page {

// Remembers which keys came last, and nothing of their contents. It takes no memory: a ghost is 32 bits, and each
// frame's metadata has room for two, of whatever keys. A key has its place in one of two frames, by its hash: who comes
// takes the oldest of those four, and each is found by looking at four. Guarded by the queue's mutex; all is O(1).
//
// What it promises: a key is remembered until as many came after it as `remember` was last told, and for less than
// `unit()` more, unless it was taken. Three things may break that, and none is more than a page kept or not:
// - four younger keys of the same frames push it out: one in twenty goes before its time;
// - frames were added since: some keys have other places then. Not all at each, for places are added by the eighth;
// - another key of the same frame has the same 16 bits: one in 30,000 that were never there is taken for one that was.
class ghost_table {
 public:
  explicit ghost_table(const frame_arena& arena);

  // Remembers a key, among the last so many.
  void remember(std::uint64_t key, std::uint32_t keys);
  // Forgets a key; false if it was not remembered.
  bool take(std::uint64_t key);
  std::uint64_t unit() const { return std::uint64_t{1} << unit_shift_; }

 private:
  using place = std::uint32_t;  // 0: nothing; else a mark of the key, not 0, and above it when it came
  struct hashed {
    std::array<frame*, 2> in;
    std::uint16_t mark;
  };

  hashed hash(std::uint64_t key) const;
  std::uint16_t now() const { return static_cast<std::uint16_t>(came_ >> unit_shift_); }
  std::uint16_t age_of(place of) const { return static_cast<std::uint16_t>(now() - (of >> 16)); }

  const frame_arena& arena_;
  const unsigned unit_shift_;     // ages are told in units: as many as fit 16 bits, four times over
  std::uint64_t came_ = 0;        // keys, ever
  std::uint32_t remembered_ = 0;  // of the last so many
};

}  // namespace larder::page

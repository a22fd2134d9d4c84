// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/units.h>

#include "base/atomic.h"

namespace larder::handle_layer {

// What a table holds for one object. The lower half of `word` is a tag, the upper what only the table knows:
//
//   used             tag = the handle             taken, owner, pins
//   erased, pinned   tag = ~(that handle)         taken, owner, waiter, pins > 0
//   free             tag = ~(the last handle)     the next of its chain, if it is on one
//
// The index bits of a complement differ from the entry's own index, so a tag equals a handle that leads here only while
// the entry is used by just that handle. Memory that was never used is zero: no handle's tag.
struct entry {
  base::atomic<std::uint64_t> object;
  base::atomic<std::uint64_t> word;
};
static_assert(sizeof(entry) == 16);

constexpr std::uint32_t entries_per_frame = page_size / sizeof(entry);

// An index plus one, so that 0 is the end of a chain.
using link = std::uint32_t;
constexpr link no_link = 0;
constexpr link link_to(std::uint32_t index) { return index + 1; }
constexpr std::uint32_t index_of(link at) { return at - 1; }

constexpr std::uint32_t tag_of(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
constexpr std::uint32_t beside(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }
constexpr std::uint64_t word_of(std::uint32_t tag, std::uint32_t upper) { return std::uint64_t{upper} << 32 | tag; }

// Beside the tag of a taken entry: a bit that a link never has, 12 for the list that it was taken from, one that says
// that somebody waits for the last unpin, 18 for the pins.
constexpr std::uint32_t taken_bit = std::uint32_t{1} << 31;
constexpr unsigned owner_shift = 19;
constexpr std::uint32_t owners_max = taken_bit >> owner_shift;
constexpr std::uint32_t waiter_bit = std::uint32_t{1} << 18;
constexpr std::uint32_t pins_max = waiter_bit - 1;
constexpr std::uint64_t one_pin = word_of(0, 1);
// The word, but for the tag, of an entry that was taken from a list and is not pinned.
constexpr std::uint64_t taken_by(std::uint32_t owner) { return word_of(0, taken_bit | owner << owner_shift); }
constexpr std::uint32_t owner_of(std::uint64_t word) { return (beside(word) & ~taken_bit) >> owner_shift; }
constexpr std::uint32_t pins_of(std::uint64_t word) {
  return (beside(word) & taken_bit) == 0 ? 0 : beside(word) & pins_max;
}

// How a table's 32 bits are split: as many for the index as its limit needs, the rest for the generation, 1 to
// `generation_max`, which changes with each use of an entry.
struct handle_format {
  // Generations of fresh entries begin after the highest bits of `first`.
  handle_format(std::size_t limit, std::uint32_t first);

  std::uint32_t index(std::uint32_t handle) const { return handle & index_mask; }
  bool is_used(std::uint32_t index, std::uint32_t tag) const { return tag != 0 && (tag & index_mask) == index; }
  // The handle after the one that a free entry's tag tells of.
  std::uint32_t next_handle(std::uint32_t free_tag) const {
    const std::uint32_t next = ~free_tag + generation_one;
    return next < generation_one ? next + generation_one : next;  // generation 0 would make a handle 0
  }
  // The tag of an entry that has been free since `generation`, counted from the table's first.
  std::uint32_t free_tag(std::uint32_t index, std::uint32_t generation) const {
    return ~((first_generation + generation) % generation_max * generation_one + index);
  }
  // How far a free entry's last generation is from the table's first.
  std::uint32_t generation_of(std::uint32_t free_tag) const {
    return (~free_tag / generation_one + generation_max - first_generation) % generation_max;
  }

  unsigned index_bits;
  std::uint32_t index_mask;
  std::uint32_t generation_one;  // the lowest bit of the generation
  std::uint32_t generation_max;
  std::uint32_t first_generation;  // less than generation_max; 0 comes before 1, and so does generation_max
};

inline handle_format::handle_format(std::size_t limit, std::uint32_t first) : index_bits(1) {
  while (std::size_t{1} << index_bits < limit) ++index_bits;
  generation_one = std::uint32_t{1} << index_bits;
  index_mask = generation_one - 1;
  generation_max = ~std::uint32_t{0} >> index_bits;
  first_generation = (first >> index_bits) % generation_max;
}

}  // namespace larder::handle_layer

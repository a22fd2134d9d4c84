// SPDX-License-Identifier: Apache-2.0
#include "page/ghost_table.h"

#include <algorithm>
#include <bit>

namespace larder::page {
namespace {

constexpr int age_bits =
    12;  // of the 16 that an age has: what is left in a place long after its time is not young again

// Frames with places: rounded down to eighths of a power of two, so that a frame more seldom moves keys.
std::uint32_t frames_with_places(std::uint32_t frames) {
  const std::uint32_t step = std::max(std::bit_floor(frames) / 8, 1U);
  return frames / step * step;
}

}  // namespace

ghost_table::ghost_table(const frame_arena& arena)
    : arena_(arena),
      unit_shift_(static_cast<unsigned>(std::max(static_cast<int>(std::bit_width(arena.capacity())) - age_bits, 0))) {}

ghost_table::hashed ghost_table::hash(std::uint64_t key) const {
  key *= 0x9E3779B97F4A7C15U;
  key = (key ^ (key >> 32)) * 0xD6E8FEB86659FD93U;
  key ^= key >> 32;
  const std::uint64_t frames = frames_with_places(arena_.end() - 1);  // one at least, whose page is being remembered
  const std::uint64_t other = (key * 0x9E3779B97F4A7C15U) >> 32;
  return {.in = {&arena_.at(static_cast<frame_index>(1 + ((key >> 32) * frames >> 32))),
                 &arena_.at(static_cast<frame_index>(1 + (other * frames >> 32)))},
          .mark = static_cast<std::uint16_t>(std::max<std::uint64_t>(key & 0xFFFF, 1))};
}

void ghost_table::remember(std::uint64_t key, std::uint32_t keys) {
  ++came_;
  remembered_ = keys;
  if (keys == 0) return;
  const hashed at = hash(key);
  place* oldest = nullptr;
  for (frame* each : at.in) {
    for (place& one : each->ghosts) {
      if (oldest == nullptr || one == 0 || (*oldest != 0 && age_of(one) > age_of(*oldest))) oldest = &one;
    }
  }
  *oldest = std::uint32_t{now()} << 16 | at.mark;
}

bool ghost_table::take(std::uint64_t key) {
  if (remembered_ == 0) return false;
  const hashed at = hash(key);
  for (frame* each : at.in) {
    for (place& one : each->ghosts) {
      if (static_cast<std::uint16_t>(one) != at.mark || age_of(one) > remembered_ >> unit_shift_) continue;
      one = 0;
      return true;
    }
  }
  return false;
}

}  // namespace larder::page

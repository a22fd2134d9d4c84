// SPDX-License-Identifier: Apache-2.0
//
// Giving frames back (KF-28). With every list closed, all free entries are taken and sorted by frames: a frame whose
// entries are all among them is used by nobody, and nobody can come to use it. The others become spare, the lowest
// frames first, so that the highest become empty. `find` goes on meanwhile: the memory stays readable, and turns to
// zeros.
//
// The generations of a frame's entries are forgotten with it, but for one that is as new as the newest: all its entries
// go on from there. Which is the newest is only clear if they lie within half of all generations.
#include <algorithm>

#include "handle/table_state.h"

namespace larder {

using namespace handle_layer;

std::size_t raw_handle_table::shrink() { return state_->shrink(state_->entries.frames_max()); }

// All free entries are sorted, however little is wanted: a large table gives a good part of what it has at once.
bytes raw_handle_table::state::reclaim(bytes wanted) {
  constexpr std::size_t parts = 16;
  const std::size_t frames = (wanted.count + page_size - 1) / page_size;
  const std::size_t there = entries.frames_there();
  return frame_table::frame_charge * shrink(there < 1024 ? frames : std::max(frames, there / parts));
}

void raw_handle_table::state::close_all(bool closed) {
  for (std::uint32_t list = 0; list < free.count(); ++list) closed ? free.close(list) : free.open(list);
  // Also ends compare-and-swaps of words that are about to go: they look at the word again, and do not write.
  if (closed) os::fence_sequences();
}

std::size_t raw_handle_table::state::shrink(std::size_t frames_most) {
  // Not even the last frame, which may be short, can be unused.
  if (entries.entries() < used() + entries.entries_of(entries.frames_max() - 1)) return 0;
  const base::lock locked(guard);
  close_all(true);
  sort_by_frames();
  std::size_t removed = 0;
  for (std::uint32_t number = entries.frames_max(); number-- > 0;) {
    if (!entries.is_there(number)) continue;
    frame_table::frame& frame = entries.bookkeeping(number);
    const bool unused = frame.free == entries.entries_of(number);
    if (unused && number >= frames_reserved && removed < frames_most && retire(number)) {
      ++removed;
    } else {
      for (chain rest{frame.first_free, frame.free}; rest.size > 0;) add_spare(free.remove_first(rest));
    }
    frame.first_free = no_link;
    frame.free = 0;
  }
  close_all(false);
  return removed;
}

// Takes all lists apart, into one for each frame.
void raw_handle_table::state::sort_by_frames() {
  for (std::uint32_t list = 0; list < free.count(); ++list) {
    spare_inbox(list);
    const chain ring = free.take_share(list, ~std::uint64_t{0} >> 1);
    moved.add(ring.size);
    sort(ring);
  }
  sort(spare);
  spare_size.subtract(spare.size);
  spare = {};
}

void raw_handle_table::state::sort(chain taken) {
  while (taken.size > 0) {
    const std::uint32_t index = free.remove_first(taken);
    frame_table::frame& frame = entries.bookkeeping(index / entries_per_frame);
    chain here{frame.first_free, frame.free};
    free.add(here, index);
    frame.first_free = here.first;
    frame.free = static_cast<std::uint32_t>(here.size);
  }
}

// Gives back a frame whose entries are all free, and on no list. False if it has to stay.
bool raw_handle_table::state::retire(std::uint32_t number) {
  const std::uint32_t first = number * entries_per_frame;
  const std::uint32_t all = format.generation_max;
  const auto generation_of = [&](std::uint32_t index) {
    return format.generation_of(tag_of(entries.at(index).word.load(base::memory_order_relaxed)));  // held by the caller
  };
  const std::uint32_t reference = generation_of(first);
  std::uint32_t ahead = 0;
  std::uint32_t behind = 0;
  for (std::uint32_t index = first; index < first + entries.entries_of(number); ++index) {
    const std::uint32_t forward = (generation_of(index) + all - reference) % all;
    const std::uint32_t backward = (all - forward) % all;
    if (forward <= backward) {
      ahead = std::max(ahead, forward);
    } else {
      behind = std::max(behind, backward);
    }
  }
  if (ahead + behind > all / 2 || !entries.remove(number)) return false;
  entries.bookkeeping(number).last_generation = (reference + ahead) % all;
  return true;
}

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "base/atomic.h"

namespace larder::page {

struct file;

// Names a frame, in half a pointer. 0 is no frame.
using frame_index = std::uint32_t;
inline constexpr frame_index no_frame = 0;

// A frame's state word: how many pins it has, and what it holds. One word, so that each transition is one atomic step.
using state_word = std::uint64_t;
inline constexpr state_word one_pin = 1;
inline constexpr state_word pins_mask = (state_word{1} << 32) - 1;
inline constexpr state_word unused = state_word{1} << 32;   // no page: owned by a list, or by one thread
inline constexpr state_word valid = state_word{1} << 33;    // the bytes are the page's
inline constexpr state_word busy = state_word{1} << 34;     // not valid yet: one who has it pinned is filling it
inline constexpr state_word dirty = state_word{1} << 35;    // newer than the backing; then valid
inline constexpr state_word writing = state_word{1} << 36;  // being written back; `dirty` again if changed meanwhile
inline constexpr state_word failed = state_word{1} << 37;   // dirty because the last write-back failed
inline constexpr state_word stale = state_word{1} << 38;    // the backing changed while it was busy: read again
// Hits since the eviction policy last took a mark away. Each hit sets the next, up to those that the policy counts.
inline constexpr state_word visited = state_word{1} << 39;
inline constexpr state_word visited_twice = state_word{1} << 40;
inline constexpr state_word waited = state_word{1} << 42;      // somebody waits for busy or writing to end
inline constexpr state_word read_ahead = state_word{1} << 43;  // brought in unasked, and not hit yet
// Both for a page that is dirty in a range that is being discarded.
inline constexpr state_word held = state_word{1} << 44;    // not to be written before the discard has ended
inline constexpr state_word zeroed = state_word{1} << 45;  // has nothing but that discard's zeros

// What keeps a page that nobody pins from being evicted.
inline constexpr state_word unevictable = pins_mask | unused | busy | dirty | writing;

// A frame's metadata, one cache line beside the 4 KiB. Once it has been used it stays a `frame` at its address until
// the cache is destroyed, so a look-up may touch any frame whose index it ever read.
struct alignas(64) frame {
  base::atomic<state_word> state{unused};
  // The page's key: written while `unused` by the one thread that has the frame, stable while the page is linked.
  base::atomic<std::uint64_t> number{0};
  base::atomic<file*> owner{nullptr};
  // Moved on before another page or nobody has the frame (optimistic_read.cc).
  base::atomic<std::uint64_t> generation{0};
  base::atomic<frame_index> next_in_bucket{no_frame};  // written under the stripe's mutex
  frame_index queue_next = no_frame;      // the eviction queue, the free or the spare list; the queue's mutex
  frame_index queue_previous = no_frame;  // the queue's mutex
  frame_index dirty_next = no_frame;      // the owner's dirty list; the file's mutex
  frame_index dirty_previous = no_frame;  // the file's mutex
  std::array<std::uint32_t, 2> ghosts{};  // not of this frame's page (ghost_table.h); the queue's mutex
  bool dirty_listed = false;              // the file's mutex
  bool in_main_queue = false;             // which of S3-FIFO's queues it is in; the queue's mutex
};
static_assert(sizeof(frame) == 64);
static_assert(base::atomic<state_word>::is_always_lock_free && base::atomic<file*>::is_always_lock_free);

}  // namespace larder::page

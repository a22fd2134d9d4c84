// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "page/frame_arena.h"

namespace larder::page {

// Decides which page leaves next: SIEVE. Pages stand in a queue, newest first; a hand moves from the oldest towards the
// newest and round again. A page visited since the hand last came by loses its mark and stays where it is; one that was
// not is the next to go. Unlike in LRU a hit moves nothing, it only sets the mark; unlike in CLOCK a page that stays
// does not become new, so pages seen once, as by a scan, leave soon.
//
// Guarded by the queue's mutex. O(1) but for the hand, which is amortised O(1) against the marks that it clears.
class eviction_queue {
 public:
  explicit eviction_queue(const frame_arena& arena) : arena_(arena) {}
  eviction_queue(const eviction_queue&) = delete;
  eviction_queue& operator=(const eviction_queue&) = delete;

  void insert(frame& page);
  void remove(frame& page);
  // Moves the hand on by one page: returns the page if it was not visited, null if it was or there is none. Looking is
  // not visiting (KF-45).
  frame* advance();
  std::uint32_t size() const { return size_; }

 private:
  const frame_arena& arena_;
  frame_index newest_ = no_frame;
  frame_index oldest_ = no_frame;
  frame_index hand_ = no_frame;  // where it looks next; no_frame: at the oldest
  std::uint32_t size_ = 0;
};

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#include "page/eviction.h"

namespace larder::page {

// queue_next leads to the older page, queue_previous to the newer.

void eviction_queue::insert(frame& page) {
  const frame_index index = arena_.index_of(page);
  page.queue_previous = no_frame;
  page.queue_next = newest_;
  if (newest_ != no_frame) {
    arena_.at(newest_).queue_previous = index;
  } else {
    oldest_ = index;
  }
  newest_ = index;
  ++size_;
}

void eviction_queue::remove(frame& page) {
  if (hand_ == arena_.index_of(page)) hand_ = page.queue_previous;
  if (page.queue_previous != no_frame) {
    arena_.at(page.queue_previous).queue_next = page.queue_next;
  } else {
    newest_ = page.queue_next;
  }
  if (page.queue_next != no_frame) {
    arena_.at(page.queue_next).queue_previous = page.queue_previous;
  } else {
    oldest_ = page.queue_previous;
  }
  page.queue_next = page.queue_previous = no_frame;
  --size_;
}

frame* eviction_queue::advance() {
  if (hand_ == no_frame) hand_ = oldest_;
  if (hand_ == no_frame) return nullptr;
  frame& page = arena_.at(hand_);
  hand_ = page.queue_previous;
  // Relaxed, here and where it is set: the mark publishes nothing.
  if ((page.state.load(base::memory_order_relaxed) & visited) == 0) return &page;
  page.state.fetch_and(~visited, base::memory_order_relaxed);
  return nullptr;
}

}  // namespace larder::page

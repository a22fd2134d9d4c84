// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "page/frame_arena.h"

namespace larder::page {

// A list of pages, newest first, linked through their frames: queue_next leads to the older page, queue_previous to the
// newer. A page is on one list at most. Guarded by the queue's mutex; all is O(1).
class page_queue {
 public:
  explicit page_queue(const frame_arena& arena) : arena_(arena) {}
  page_queue(const page_queue&) = delete;
  page_queue& operator=(const page_queue&) = delete;

  std::uint32_t size() const { return size_; }
  frame* newest() const { return newest_ == no_frame ? nullptr : &arena_.at(newest_); }
  frame* oldest() const { return oldest_ == no_frame ? nullptr : &arena_.at(oldest_); }
  frame* newer_than(const frame& page) const {
    return page.queue_previous == no_frame ? nullptr : &arena_.at(page.queue_previous);
  }

  void push_newest(frame& page) {
    const frame_index index = arena_.index_of(page);
    page.queue_previous = no_frame;
    page.queue_next = newest_;
    (newest_ == no_frame ? oldest_ : arena_.at(newest_).queue_previous) = index;
    newest_ = index;
    ++size_;
  }
  void remove(frame& page) {
    (page.queue_previous == no_frame ? newest_ : arena_.at(page.queue_previous).queue_next) = page.queue_next;
    (page.queue_next == no_frame ? oldest_ : arena_.at(page.queue_next).queue_previous) = page.queue_previous;
    page.queue_next = page.queue_previous = no_frame;
    --size_;
  }

 private:
  const frame_arena& arena_;
  frame_index newest_ = no_frame;
  frame_index oldest_ = no_frame;
  std::uint32_t size_ = 0;
};

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include <larder/result.h>
#include <larder/units.h>

#include "page/frame.h"

namespace larder::page {

// Address space for the most frames that a cache may ever own, and for their metadata. A page of either costs nothing
// until it is touched, and a frame that is given back costs nothing again: whatever was evicted is returned page for
// page (KF-54). Metadata stays, at one 64th of the most frames that were ever owned.
//
// Which frames are owned, and the charges, are the cache's affair.
class frame_arena {
 public:
  static constexpr std::uint32_t frames_per_metadata_page = page_size / sizeof(frame);

  frame_arena() = default;
  ~frame_arena();
  frame_arena(const frame_arena&) = delete;
  frame_arena& operator=(const frame_arena&) = delete;

  // Once, before anything else: pages of 2^page_shift bytes, a power of two that is no less than page_size. ENOMEM.
  result<void> reserve(std::uint32_t frames_max, std::uint32_t page_shift);

  std::uint32_t page_shift() const { return page_shift_; }
  std::size_t page_length() const { return std::size_t{1} << page_shift_; }
  std::uint32_t capacity() const { return capacity_; }
  frame& at(frame_index index) const { return frames_[index]; }
  frame_index index_of(const frame& which) const { return static_cast<frame_index>(&which - frames_); }
  std::byte* data_of(const frame& which) const { return data_ + (std::size_t{index_of(which)} << page_shift_); }

  // The rest is guarded by the queue's mutex.

  // How many frames can be taken, and how many new pages of metadata the next `count` of them need.
  std::uint32_t spare_count() const { return spare_count_; }
  std::uint32_t not_taken() const { return spare_count_ + (capacity_ + 1 - end_); }
  std::uint32_t metadata_for(std::uint32_t count) const;
  // What the next `count` of them cost: their data, and that metadata.
  bytes cost_of(std::uint32_t count) const {
    return bytes{page_length()} * count + bytes{page_size} * metadata_for(count);
  }
  // Takes a frame that is not owned: one that was given back, else the next that was never used.
  frame& take();
  void give_back(frame& which);
  // One past the highest frame ever used. May be read without the mutex by who tolerates an older value.
  frame_index end() const { return published_end_.load(base::memory_order_acquire); }
  std::uint32_t metadata_pages() const;

 private:
  std::uint32_t capacity_ = 0;
  std::uint32_t page_shift_ = 0;
  frame* frames_ = nullptr;
  std::byte* data_ = nullptr;
  frame_index spare_ = no_frame;   // frames that were given back; the queue's mutex
  std::uint32_t spare_count_ = 0;  // the queue's mutex
  frame_index end_ = 1;            // the queue's mutex
  // Release after the frame was built; partner: the acquire in end().
  base::atomic<frame_index> published_end_{1};
};

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#include "page/frame_arena.h"

#include <new>
#include <utility>

#include "os/memory.h"

namespace larder::page {
namespace {

// Frame 0 is never used, but has its place.
bytes data_length(std::uint32_t capacity, std::uint32_t page_shift) {
  return {(std::uint64_t{capacity} + 1) << page_shift};
}
bytes metadata_length(std::uint32_t capacity) {
  return round_up_to_pages(bytes{sizeof(frame)} * (std::uint64_t{capacity} + 1));
}

std::uint32_t metadata_pages_for(frame_index end) {
  return (end + frame_arena::frames_per_metadata_page - 1) / frame_arena::frames_per_metadata_page;
}

}  // namespace

result<void> frame_arena::reserve(std::uint32_t frames_max, std::uint32_t page_shift) {
  const auto data = os::map(data_length(frames_max, page_shift));
  if (!data) return data.error();
  const auto metadata = os::map(metadata_length(frames_max));
  if (!metadata) {
    os::unmap(*data, data_length(frames_max, page_shift));
    return metadata.error();
  }
  capacity_ = frames_max;
  page_shift_ = page_shift;
  data_ = static_cast<std::byte*>(*data);
  frames_ = static_cast<frame*>(*metadata);
  return {};
}

frame_arena::~frame_arena() {
  if (frames_ == nullptr) return;
  os::unmap(data_, data_length(capacity_, page_shift_));
  os::unmap(frames_, metadata_length(capacity_));
}

frame& frame_arena::take() {
  if (spare_ != no_frame) {
    frame& taken = at(spare_);
    spare_ = std::exchange(taken.queue_next, no_frame);
    --spare_count_;
    return taken;
  }
  frame& built = *new (&frames_[end_]) frame;
  ++end_;
  published_end_.store(end_, base::memory_order_release);
  return built;
}

void frame_arena::give_back(frame& which) {
  which.queue_next = spare_;
  spare_ = index_of(which);
  ++spare_count_;
}

std::uint32_t frame_arena::metadata_pages() const { return metadata_pages_for(end_); }

std::uint32_t frame_arena::metadata_for(std::uint32_t count) const {
  return count <= spare_count_ ? 0 : metadata_pages_for(end_ + (count - spare_count_)) - metadata_pages_for(end_);
}

}  // namespace larder::page

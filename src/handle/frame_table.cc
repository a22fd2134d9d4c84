// SPDX-License-Identifier: Apache-2.0
#include "handle/frame_table.h"

#include <algorithm>
#include <new>

#include "cache/span.h"
#include "os/memory.h"

namespace larder::handle_layer {

frame_table::frame_table(memory_budget& budget, const handle_format& format, std::size_t limit)
    : budget_(budget),
      limit_(limit),
      frames_max_(static_cast<std::uint32_t>((limit + entries_per_frame - 1) / entries_per_frame)),
      entries_length_{round_up((std::size_t{format.index_mask} + 1) * sizeof(entry), page_size)},
      charge_(cache::charge_or_throw(budget, bytes{frames_max_ * sizeof(frame)})),
      frames_(new frame[frames_max_]) {
  const result<void*> entries = os::map(entries_length_);
  if (!entries) throw std::bad_alloc();
  entries_ = static_cast<entry*>(*entries);
}

frame_table::~frame_table() {
  os::unmap(entries_, entries_length_);
  budget_.release(frame_charge * frames_there());
}

std::uint32_t frame_table::lowest_absent() {
  while (there_below_ < frames_max_ && is_there(there_below_)) ++there_below_;
  return there_below_;
}

result<void> frame_table::add(std::uint32_t number, bool charged) {
  if (!charged && !budget_.try_charge(frame_charge)) return error_from(ENOMEM);
  frames_[number].there.store(1, base::memory_order_release);  // partner: is_there
  ++frames_there_;
  return {};
}

bool frame_table::remove(std::uint32_t number) {
  if (!os::discard(&at(number * entries_per_frame), frame_charge)) return false;
  frames_[number].there.store(0, base::memory_order_release);  // partner: is_there
  --frames_there_;
  there_below_ = std::min(there_below_, number);
  budget_.release(frame_charge);
  return true;
}

std::uint32_t frame_table::entries_of(std::uint32_t number) const {
  return static_cast<std::uint32_t>(
      std::min<std::size_t>(entries_per_frame, limit_ - std::size_t{number} * entries_per_frame));
}

std::size_t frame_table::entries() const {
  const std::size_t missing_from_last = std::size_t{frames_max_} * entries_per_frame - limit_;
  return std::size_t{frames_there()} * entries_per_frame - (is_there(frames_max_ - 1) ? missing_from_last : 0);
}

}  // namespace larder::handle_layer

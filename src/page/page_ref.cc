// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "base/check.h"
#include "page/cache_core.h"

namespace larder {

result<void> page_ref::written(std::size_t first, std::size_t last) {
  LARDER_CHECK(frame_ != nullptr && first <= last && last <= size_, "page_ref: bytes %zu to %zu of %u written", first,
               last, unsigned{size_});
  if (!fresh_) {
    mark_dirty();
    return {};
  }
  const bool whole = first == 0 && last == size_;
  do {
    if (const auto filled = whole ? result<void>() : read_around(first, last); !filled) return filled;
  } while (!admission_->core_->publish(*frame_, true, whole));
  fresh_ = false;
  dirtied_ = true;
  return {};
}

// Reads what the page has before byte `first` and from byte `last` on.
result<void> page_ref::read_around(std::size_t first, std::size_t last) {
  page::file& file = *frame_->owner.load(base::memory_order_relaxed);
  const std::uint64_t number = frame_->number.load(base::memory_order_relaxed);
  const std::uint64_t offset = file.offset_of(number);
  file.core.wait_for_discards(file, number, number + 1);
  const auto read = [&](std::size_t from, std::size_t to) -> result<void> {
    if (from == to) return {};
    const iovec vector{data_ + from, to - from};
    return file.source.read(std::span(&vector, 1), offset + from);
  };
  if (const auto before = read(0, first); !before) return before;
  if (const auto after = read(last, size_); !after) return after;
  file.core.note_read(1);
  return {};
}

void page_ref::mark_dirty() {
  LARDER_CHECK(frame_ != nullptr && !fresh_, "page_ref: mark_dirty of %s", fresh_ ? "a fresh page" : "no page");
  dirtied_ = true;
  admission_->core_->mark_dirty(*frame_);
}

void page_ref::unpin() {
  page::cache_core& core = *admission_->core_;
  if (fresh_) [[unlikely]]
    core.give_up_filling(*frame_);
  // A write-back may have begun between mark_dirty and the last change.
  if (dirtied_ && (frame_->state.load(base::memory_order_relaxed) & page::dirty) == 0) core.mark_dirty(*frame_);
  core.unpin(*std::exchange(frame_, nullptr));
  --admission_->pinned_;
}

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// Why a look-up without a lock (page_table.h) is right. A frame's key changes only while its state is `unused`, and it
// becomes `unused` only from a state without pins. find_and_pin adds a pin and looks at the state it added it to:
//
//   not unused   the frame holds some page, and holds it as long as the pin lasts. The addition is an acquire, and
//   reads
//                from the release sequence headed by the insertion that ended `unused`, so the key that is read next is
//                that page's. If it is the key looked for, the page is found; if not, the pin is taken back.
//   unused       the pin is taken back. Who has the frame changes its state by additions only, so the pin for a moment
//                is not lost, and does no harm.
//
// Frames stay frames for the life of the table, so a walk that was led astray by a frame moved to another bucket reads
// indexes that were once true, at worst in a circle: it gives up after some steps.
//
// Orders: bucket heads and links are stored with release, after the frame's key; the walk loads them with acquire.
#include "page/page_table.h"

#include <algorithm>

#include "base/check.h"
#include "os/memory.h"

namespace larder::page {
namespace {

// One bucket a frame, up to 4 MiB of them: a cache without a limit has chains of a few frames instead.
constexpr std::uint32_t buckets_max = 1U << 20;

}  // namespace

bytes page_table::length_for(std::uint32_t frames_max) {
  return round_up_to_pages(bytes{sizeof(frame_index)} * std::min(frames_max, buckets_max));
}

result<void> page_table::reserve(std::uint32_t frames_max) {
  const bytes length = length_for(frames_max);
  const auto mapped = os::map(length);
  if (!mapped) return mapped.error();
  buckets_ = static_cast<base::atomic<frame_index>*>(*mapped);  // zeros: every bucket is empty
  buckets_count_ = static_cast<std::uint32_t>(length.count / sizeof(frame_index));
  return {};
}

page_table::~page_table() {
  if (buckets_ != nullptr) os::unmap(buckets_, bytes{sizeof(frame_index)} * buckets_count_);
}

frame* page_table::look_behind(const frame& first, const file& owner, std::uint64_t number) const {
  frame_index index = first.next_in_bucket.load(base::memory_order_acquire);
  for (int step = 1; index != no_frame && step < steps_max; ++step) {
    frame& at = arena_.at(index);
    if (holds(at, owner, number)) return &at;
    index = at.next_in_bucket.load(base::memory_order_acquire);
  }
  return nullptr;
}

frame* page_table::find(const file& owner, std::uint64_t number) const {
  // Relaxed: everything here was written under the stripe's mutex.
  frame_index index = buckets_[bucket_of(owner, number)].load(base::memory_order_relaxed);
  while (index != no_frame) {
    frame& at = arena_.at(index);
    if (holds(at, owner, number)) return &at;
    index = at.next_in_bucket.load(base::memory_order_relaxed);
  }
  return nullptr;
}

void page_table::link(frame& page) {
  auto& head =
      buckets_[bucket_of(*page.owner.load(base::memory_order_relaxed), page.number.load(base::memory_order_relaxed))];
  page.next_in_bucket.store(head.load(base::memory_order_relaxed), base::memory_order_release);
  head.store(arena_.index_of(page), base::memory_order_release);
}

void page_table::unlink(frame& page) {
  auto* link =
      &buckets_[bucket_of(*page.owner.load(base::memory_order_relaxed), page.number.load(base::memory_order_relaxed))];
  const frame_index sought = arena_.index_of(page);
  for (frame_index index = link->load(base::memory_order_relaxed); index != sought;
       index = link->load(base::memory_order_relaxed)) {
    LARDER_CHECK(index != no_frame, "page cache: frame %u is not in its bucket", sought);
    link = &arena_.at(index).next_in_bucket;
  }
  link->store(page.next_in_bucket.load(base::memory_order_relaxed), base::memory_order_release);
}

void page_table::synchronize() const {
  for (stripe_lock& each : stripes_) const base::lock locked(each.guard);
}

}  // namespace larder::page

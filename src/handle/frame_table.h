// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <larder/memory_budget.h>

#include "base/atomic.h"
#include "handle/entry.h"

namespace larder::handle_layer {

// The entries' memory: frames of a page, charged while they are there, in one range of addresses that is reserved for
// every index that the handle's bits can name. So an entry is found by adding: the processor's own page tables are the
// directory. A frame that is not there reads as zeros, which are no handle's tag; so a look-up with any number at all
// is safe and needs no bound.
class frame_table {
 public:
  // Reserves addresses, and 16 bytes for each frame that there may be. Throws std::bad_alloc if the system or the
  // budget refuses them; reclaims, but does not wait.
  frame_table(memory_budget& budget, const handle_format& format, std::size_t limit);
  ~frame_table();
  frame_table(const frame_table&) = delete;
  frame_table& operator=(const frame_table&) = delete;

  // Any index that the format has.
  entry& at(std::uint32_t index) const { return entries_[index]; }

  // Says that the caller is about to write an entry that may be in another CPU's cache.
  void expect_change(std::uint32_t index) const { __builtin_prefetch(&entries_[index], 1); }

  struct frame {
    base::atomic<std::uint32_t> there{0};
    // All that follow are guarded by the table's mutex.
    std::uint32_t last_generation = 0;  // of all entries when it is added, counted from the table's first
    link first_free = no_link;          // for a walk over the free entries: those of this frame
    std::uint32_t free = 0;
  };
  static_assert(sizeof(frame) == 16);

  bool is_there(std::uint32_t number) const {
    return frames_[number].there.load(base::memory_order_acquire) != 0;  // partner: add
  }
  std::uint32_t frames_max() const { return frames_max_; }
  std::uint32_t frames_there() const { return frames_there_.load(base::memory_order_relaxed); }  // a figure
  // Entries of a frame: the last one's may be fewer, for a limit is exact.
  std::uint32_t entries_of(std::uint32_t number) const;
  // Of all frames that are there.
  std::size_t entries() const;
  bytes charged() const { return charge_.amount() + frame_charge * frames_there(); }
  static constexpr bytes frame_charge{page_size};

  // All that follow are called under the table's mutex.

  frame& bookkeeping(std::uint32_t number) { return frames_[number]; }
  // The lowest frame that is not there; frames_max() if all are.
  std::uint32_t lowest_absent();
  // Charges frame `number`, which is absent. Its entries are zero. With `charged` the caller has paid for it, and on
  // failure keeps what they paid. ENOMEM.
  result<void> add(std::uint32_t number, bool charged);
  // Gives a frame back whose entries are all free and on no list. False if the system keeps it, as it was.
  bool remove(std::uint32_t number);

 private:
  memory_budget& budget_;
  const std::size_t limit_;
  const std::uint32_t frames_max_;
  const bytes entries_length_;
  const budget_charge charge_;
  entry* entries_ = nullptr;
  const std::unique_ptr<frame[]> frames_;
  std::uint32_t there_below_ = 0;                // all frames below it are there; guarded by the mutex
  base::atomic<std::uint32_t> frames_there_{0};  // written under the mutex
};

}  // namespace larder::handle_layer

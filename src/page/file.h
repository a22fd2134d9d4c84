// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <larder/backing.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "page/frame.h"
#include "page/group_commit.h"
#include "page/read_ahead.h"
#include "page/waiter.h"

namespace larder::page {

class cache_core;

// Pages of a file that are being discarded. Guarded by the file's mutex.
struct discard_in_progress : base::list_link<> {
  discard_in_progress(std::uint64_t first_page, std::uint64_t last_page) : first(first_page), last(last_page) {}

  const std::uint64_t first;
  const std::uint64_t last;
};

// A backing that is open in a cache. It lives until its cached_file is destroyed and the last write-back that met it
// has let go of it.
struct file {
  file(cache_core& cache, backing& opened, std::uint32_t shift, std::uint64_t number)
      : core(cache), source(opened), size(opened.size().count), page_shift(shift), salt(number << 40) {}

  std::size_t page_length() const { return std::size_t{1} << page_shift; }
  std::uint64_t page_of(std::uint64_t offset) const { return offset >> page_shift; }
  std::uint64_t offset_of(std::uint64_t number) const { return number << page_shift; }
  // How many pages a range lies in, or in parts of.
  std::uint64_t pages_touched(std::uint64_t offset, std::uint64_t length) const {
    return length == 0 ? 0 : page_of(offset + length - 1) - page_of(offset) + 1;
  }
  std::uint64_t pages() const { return page_count; }
  // How many bytes of a page are in the file: all but in the last.
  std::size_t bytes_in_page(std::uint64_t number) const {
    return static_cast<std::size_t>(std::min<std::uint64_t>(page_length(), size - offset_of(number)));
  }

  // With `guard` held: whether any of these pages is being discarded.
  bool is_discarding(std::uint64_t first, std::uint64_t last) const {
    for (auto* each = discards.front(); each != nullptr; each = discards.after(*each)) {
      if (each->first < last && first < each->last) return true;
    }
    return false;
  }

  cache_core& core;
  backing& source;
  const std::uint64_t size;
  const std::uint32_t page_shift;
  const std::uint64_t page_count = pages_touched(0, size);
  const std::uint64_t salt;  // sets this file's pages apart from another's in the hash table

  base::atomic<std::uint32_t> references{1};

  mutable base::mutex guard{base::lock_rank::page_file};
  // The pages that are dirty or writing, first dirtied first; linked through frame::dirty_next. Guarded by `guard`, as
  // is every end of `dirty` that does not begin `writing`.
  frame_index dirty_head = no_frame;
  frame_index dirty_tail = no_frame;
  std::uint32_t dirty_count = 0;
  base::intrusive_list<discard_in_progress> discards;  // guarded by `guard`
  base::intrusive_list<waiter> discard_waiters;        // for the end of any; guarded by `guard`

  read_ahead_streams streams;  // guarded by `guard`

  group_commit write_pass;  // flushes that write all that is dirty
  group_commit sync;        // calls of source.flush
};

}  // namespace larder::page

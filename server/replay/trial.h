// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include <larder/memory_budget.h>
#include <larder/page_cache.h>

#include "server/replay/blank_disk.h"
#include "server/replay/request.h"

namespace larder::server::replay {

// A cache to be tried: what is given to `larder serve`'s page cache.
struct cache_choice {
  bytes memory;  // the limit of the cache's budget: pages, their metadata and the tables
  eviction_policy policy = default_eviction_policy;
  bytes page{page_size};
};

// What a trace did to a cache. The same for the same requests and cache, always.
struct outcome {
  page_cache_stats pages;  // before what was dirty at the end was written
  std::uint64_t disk_reads = 0;
  bytes disk_read;
  bytes disk_written;

  std::uint64_t look_ups() const { return pages.hits + pages.misses; }
  double hit_ratio() const;  // 0 if there were no look-ups
};

// One page cache, driven by requests as the server drives its own: each pins the pages of a window after the other.
// Used by one thread, which never waits.
class trial {
 public:
  // Throws bad_start if the memory is too little, or more than the machine has: the cache would be a smaller one.
  explicit trial(const cache_choice& chosen);
  ~trial();

  void apply(const request& next);
  outcome now() const;

  // The least memory that a cache with these options works with, and the least in which so many pages fit.
  static bytes least_memory(eviction_policy policy, bytes page);
  static bytes memory_for(std::uint64_t pages, eviction_policy policy, bytes page);

 private:
  pin_admission admit();
  void read(std::uint64_t offset, std::uint64_t length);
  void write(std::uint64_t offset, std::uint64_t length);

  const bytes page_;
  memory_budget budget_;
  blank_disk disk_;
  std::unique_ptr<page_cache> cache_;
  std::unique_ptr<cached_file> file_;
  std::uint32_t window_pages_ = 1;  // pinned at once
};

}  // namespace larder::server::replay

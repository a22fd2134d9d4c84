// SPDX-License-Identifier: Apache-2.0
//
// A story: a budget, a page cache or two, files on virtual disks and object caches, and actors who use them, all of it
// drawn from a seed. Everything that a read finds is checked against contents_model, every error against what the disks
// did, every good flush against what is durable; at the end all is flushed to disks that work, compared, closed, and
// the budget is empty.
#pragma once

#include <cstdint>
#include <string>

#include <larder/page_cache.h>

#include "tests/simulation/virtual_disk.h"
#include "tests/simulation/world.h"

namespace larder::simulation {

struct story_settings {
  world_settings world;
  disk_settings disk;  // `size` is of the largest file
  std::uint32_t guaranteed_pages = 8;
  std::uint64_t extra_pages = 16;     // what the budget has beyond the least that the caches need
  std::uint64_t cache_pages_max = 0;  // 0: as the budget allows
  std::uint64_t page_length = page_size;
  eviction_policy policy = default_eviction_policy;
  std::uint64_t read_ahead_pages = 0;
  unsigned caches = 1;
  unsigned files = 1;        // of each cache
  unsigned rounds = 1;       // after each, everybody rests, and all is audited
  unsigned operations = 10;  // of each actor in each round
  unsigned file_users = 10;
  unsigned chargers = 0;
  unsigned object_users = 0;
  unsigned hoarders = 0;
  unsigned power_cuts = 0;
  bool limit_changes = false;
  std::uint64_t writes_fail_us = 0;      // from the beginning, for so long, no write succeeds
  bytes limit{};                         // of the budget; nothing: what the caches need, and `extra_pages`
  bool troubled = false;                 // the disks are worse for a while, now and then
  std::uint8_t high_mark_percent = 100;  // of the budget: the page daemon has work above it
  bool user_reserve = false;             // the budget keeps a reserve for reclaimers
};

// What a seed means.
story_settings settings_of(std::uint64_t seed);

// What stories have done.
struct story_figures {
  std::uint64_t switches = 0;
  std::uint64_t evictions = 0;
  std::uint64_t write_back_errors = 0;
  std::uint64_t memory_waits = 0;
  std::uint64_t admission_waits = 0;
  std::uint64_t frame_waits = 0;
  std::uint64_t reclaimed = 0;
  std::uint64_t daemon_rounds = 0;

  story_figures& operator+=(const story_figures& more) {
    switches += more.switches;
    evictions += more.evictions;
    write_back_errors += more.write_back_errors;
    memory_waits += more.memory_waits;
    admission_waits += more.admission_waits;
    frame_waits += more.frame_waits;
    reclaimed += more.reclaimed;
    daemon_rounds += more.daemon_rounds;
    return *this;
  }
};

struct outcome : story_figures {
  std::string failure;  // empty if it ended well
  std::string report;   // the last events, of a failure
  std::uint64_t fingerprint = 0;
  std::uint64_t steps = 0;
};

outcome run_story(const story_settings& chosen);

// The ancestor's deadlocks (KF-51), as stories: see story_of_many.cc.
outcome run_many_with_a_page_each(std::uint64_t seed, unsigned actors, bytes limit);
outcome run_file_that_owns_all_pages(std::uint64_t seed);

}  // namespace larder::simulation

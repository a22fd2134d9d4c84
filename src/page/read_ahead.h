// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace larder::page {

// Tells who reads a file in ascending order from the pages that it misses, several readers at once. What is missed
// where an earlier miss and what was read ahead of it ended goes on with that stream; then twice as much as the last
// time is read ahead, so that a short run costs little and a long one few reads. Any other miss begins a stream, in the
// place of the one that has not gone on for longest. Guarded by the file's mutex.
class read_ahead_streams {
 public:
  static constexpr std::uint32_t first_window_pages = 4;

  // Pages from `first` to before `end` are missed. Returns how many of those after them to read too: `most` at most,
  // and if several streams go on, its part of `room`.
  std::uint32_t note_miss(std::uint64_t first, std::uint64_t end, std::uint32_t most, std::uint32_t room);
  // So many pages from `end` on are read with them.
  void note_read(std::uint64_t end, std::uint64_t pages);

 private:
  struct stream {
    std::uint64_t next = ~std::uint64_t{0};  // the page whose miss goes on with it
    std::uint64_t last_used = 0;             // by count of misses
    std::uint32_t window_pages = 0;          // what was to be read ahead last
  };

  std::array<stream, 4> streams_;
  std::uint64_t misses_ = 0;
};

}  // namespace larder::page

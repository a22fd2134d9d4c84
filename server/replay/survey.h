// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include <larder/memory_budget.h>

#include "server/replay/request.h"

namespace larder::server::replay {

// What a trace is, whatever cache it meets: its requests, the pages that it touches, and the hits that a cache without
// a limit would have, which no other can exceed. One bit for each page that was touched, and one for each that such a
// cache would hold. Used by one thread.
class survey {
 public:
  // Charges its memory to `budget`.
  survey(bytes page, memory_budget& budget) : page_(page), budget_(budget) {}
  survey(const survey&) = delete;
  survey& operator=(const survey&) = delete;
  ~survey() { budget_.release(group_charge * groups_.size()); }

  // False if the budget has no room; the request is then not counted.
  [[nodiscard]] bool add(const request& next);

  std::uint64_t requests() const;
  std::uint64_t requests_of(operation what) const { return requests_[static_cast<std::size_t>(what)]; }
  bytes length_of(operation what) const { return lengths_[static_cast<std::size_t>(what)]; }
  // Look-ups of pages: hits and misses together, the same for each cache.
  std::uint64_t look_ups() const { return look_ups_; }
  // Look-ups that find the page in a cache that holds everything.
  std::uint64_t hits_most() const { return hits_most_; }
  std::uint64_t footprint_pages() const { return footprint_pages_; }
  // Where the last request ends.
  bytes disk_end() const { return disk_end_; }

 private:
  static constexpr std::uint64_t pages_in_group = 512;
  struct group {
    std::array<std::uint64_t, pages_in_group / 64> touched{};
    std::array<std::uint64_t, pages_in_group / 64> present{};
  };
  // The group, and what a hash table takes for it, generously.
  static constexpr bytes group_charge{sizeof(group) + 64};

  group* group_of(std::uint64_t number);
  bool look_up(std::uint64_t first, std::uint64_t end);
  bool look_up_range(std::uint64_t offset, std::uint64_t length);
  bool discard(std::uint64_t offset, std::uint64_t length);
  void drop(std::uint64_t first, std::uint64_t end);
  static void drop_in(group& from, std::uint64_t first, std::uint64_t end);

  const bytes page_;
  memory_budget& budget_;
  std::unordered_map<std::uint64_t, group> groups_;
  std::uint64_t last_number_ = 0;  // of the group that was used last: requests are near each other
  group* last_ = nullptr;
  std::array<std::uint64_t, operation_count> requests_{};
  std::array<bytes, operation_count> lengths_{};
  std::uint64_t look_ups_ = 0;
  std::uint64_t hits_most_ = 0;
  std::uint64_t footprint_pages_ = 0;
  bytes disk_end_;
};

}  // namespace larder::server::replay

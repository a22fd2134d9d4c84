// SPDX-License-Identifier: Apache-2.0
#include "server/replay/survey.h"

#include <algorithm>

namespace larder::server::replay {

bool survey::add(const request& next) {
  if (next.what == operation::discard) {
    if (!discard(next.offset, next.length)) return false;
  } else if (next.what != operation::flush) {
    if (!look_up_range(next.offset, next.length)) return false;
  }
  const std::size_t what = static_cast<std::size_t>(next.what);
  ++requests_[what];
  lengths_[what] += bytes{next.length};
  if (next.length > 0) disk_end_ = std::max(disk_end_, bytes{next.offset + next.length});
  return true;
}

std::uint64_t survey::requests() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t each : requests_) sum += each;
  return sum;
}

// Made if it is not there; null if there is no room.
survey::group* survey::group_of(std::uint64_t number) {
  if (last_ != nullptr && last_number_ == number) return last_;
  auto found = groups_.find(number);
  if (found == groups_.end()) {
    if (!budget_.try_charge(group_charge)) return nullptr;
    found = groups_.try_emplace(number).first;
  }
  last_number_ = number;
  last_ = &found->second;
  return last_;
}

bool survey::look_up(std::uint64_t first, std::uint64_t end) {
  // All that is needed first, so that what is refused is not counted by half.
  for (std::uint64_t number = first / pages_in_group; number * pages_in_group < end; ++number) {
    if (group_of(number) == nullptr) return false;
  }
  for (std::uint64_t page = first; page < end; ++page) {
    group& in = *group_of(page / pages_in_group);
    const std::size_t word = page % pages_in_group / 64;
    const std::uint64_t bit = std::uint64_t{1} << page % 64;
    hits_most_ += (in.present[word] & bit) != 0 ? 1U : 0U;
    footprint_pages_ += (in.touched[word] & bit) == 0 ? 1U : 0U;
    in.touched[word] |= bit;
    in.present[word] |= bit;
  }
  look_ups_ += end - first;
  return true;
}

bool survey::look_up_range(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return true;
  return look_up(offset / page_.count, (offset + length - 1) / page_.count + 1);
}

// As the page cache does it: whole pages leave, and zeros are written to what is left of others.
bool survey::discard(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t end = offset + length;
  const std::uint64_t first = (offset + page_.count - 1) / page_.count;
  const std::uint64_t last = end / page_.count;
  if (first >= last) return look_up_range(offset, length);
  if (!look_up_range(offset, first * page_.count - offset)) return false;
  drop(first, last);
  return look_up_range(last * page_.count, end - last * page_.count);
}

void survey::drop(std::uint64_t first, std::uint64_t end) {
  const std::uint64_t first_group = first / pages_in_group;
  const std::uint64_t end_group = (end + pages_in_group - 1) / pages_in_group;
  const auto drop_from = [&](std::uint64_t number, group& each) {
    const std::uint64_t start = number * pages_in_group;
    drop_in(each, std::max(first, start) - start, std::min(end, start + pages_in_group) - start);
  };
  if (end_group - first_group > groups_.size()) {
    for (auto& [number, each] : groups_) {
      if (first_group <= number && number < end_group) drop_from(number, each);
    }
    return;
  }
  for (std::uint64_t number = first_group; number < end_group; ++number) {
    if (const auto found = groups_.find(number); found != groups_.end()) drop_from(number, found->second);
  }
}

void survey::drop_in(group& from, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t page = first; page < end; ++page) from.present[page / 64] &= ~(std::uint64_t{1} << page % 64);
}

}  // namespace larder::server::replay

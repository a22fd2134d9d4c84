// SPDX-License-Identifier: Apache-2.0
#include "server/replay/request_store.h"

namespace larder::server::replay {
namespace {

// Small numbers of either sign as small numbers: 0, -1, 1, -2, ...
std::uint64_t folded(std::int64_t value) {
  return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
}
std::int64_t unfolded(std::uint64_t value) {
  return static_cast<std::int64_t>(value >> 1) ^ -static_cast<std::int64_t>(value & 1);
}

}  // namespace

bool request_store::add(const request& next) {
  if (chunks_.empty() || chunks_.back().used + request_most > chunk_size) {
    if (!budget_.try_charge(bytes{chunk_size})) return false;
    chunks_.emplace_back(budget_charge(budget_, bytes{chunk_size}));
  }
  put_number(next.length << 2 | static_cast<std::uint64_t>(next.what));
  put_number(folded(static_cast<std::int64_t>(next.offset - end_before_)));
  end_before_ = next.offset + next.length;
  ++size_;
  return true;
}

void request_store::put_number(std::uint64_t number) {
  chunk& into = chunks_.back();
  for (; number >= 0x80; number >>= 7) into.data[into.used++] = static_cast<std::uint8_t>(number | 0x80);
  into.data[into.used++] = static_cast<std::uint8_t>(number);
}

bool request_store::cursor::next(request& into) {
  if (chunk_ < from_.chunks_.size() && at_ == from_.chunks_[chunk_].used) {
    ++chunk_;
    at_ = 0;
  }
  if (chunk_ == from_.chunks_.size()) return false;
  const std::uint64_t first = take_number();
  into.what = static_cast<operation>(first & 3);
  into.length = first >> 2;
  into.offset = end_before_ + static_cast<std::uint64_t>(unfolded(take_number()));
  end_before_ = into.offset + into.length;
  return true;
}

std::uint64_t request_store::cursor::take_number() {
  const std::uint8_t* const data = from_.chunks_[chunk_].data.get();
  std::uint64_t number = 0;
  for (unsigned shift = 0;; shift += 7) {
    const std::uint8_t next = data[at_++];
    number |= std::uint64_t{next & 0x7fU} << shift;
    if (next < 0x80) return number;
  }
}

}  // namespace larder::server::replay

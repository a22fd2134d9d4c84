// SPDX-License-Identifier: Apache-2.0
#include "page/ghost_table.h"

#include <algorithm>
#include <cstddef>

#include "os/memory.h"

namespace larder::page {

bytes ghost_table::length_for(std::uint32_t keys_max) {
  return round_up_to_pages(bytes{sizeof(entry) + sizeof(entry_name)} * keys_max);
}

result<void> ghost_table::reserve(std::uint32_t keys_max) {
  const auto mapped = os::map(length_for(keys_max));
  if (!mapped) return mapped.error();
  memory_ = *mapped;  // zeros: every chain is empty
  entries_ = std::span(static_cast<entry*>(memory_), keys_max);
  chains_ = std::span(reinterpret_cast<entry_name*>(entries_.data() + keys_max), keys_max);
  return {};
}

ghost_table::~ghost_table() {
  if (memory_ != nullptr) os::unmap(memory_, length_for(static_cast<std::uint32_t>(entries_.size())));
}

ghost_table::entry_name& ghost_table::chain_of(std::uint64_t key) {
  return chains_[((key * 0x9E3779B97F4A7C15U) >> 32) * chains_.size() >> 32];
}

void ghost_table::insert(std::uint64_t key, std::uint32_t keys) {
  const std::size_t most = std::min<std::size_t>(keys, entries_.size());
  if (most == 0) return;
  while (size_ >= most) forget(oldest_);
  const entry_name name = free_ != 0 ? free_ : ++used_;
  if (free_ != 0) free_ = at(free_).next_in_chain;
  entry_name& chain = chain_of(key);
  at(name) = {.key = key, .next_in_chain = chain, .newer = 0, .older = newest_};
  chain = name;
  (newest_ == 0 ? oldest_ : at(newest_).newer) = name;
  newest_ = name;
  ++size_;
}

bool ghost_table::take(std::uint64_t key) {
  if (size_ == 0) return false;
  entry_name name = chain_of(key);
  while (name != 0 && at(name).key != key) name = at(name).next_in_chain;
  if (name == 0) return false;
  forget(name);
  return true;
}

void ghost_table::forget(entry_name name) {
  entry& forgotten = at(name);
  entry_name* link = &chain_of(forgotten.key);
  while (*link != name) link = &at(*link).next_in_chain;
  *link = forgotten.next_in_chain;
  (forgotten.newer == 0 ? newest_ : at(forgotten.newer).older) = forgotten.older;
  (forgotten.older == 0 ? oldest_ : at(forgotten.older).newer) = forgotten.newer;
  forgotten.next_in_chain = free_;
  free_ = name;
  --size_;
}

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <larder/result.h>
#include <larder/units.h>

namespace larder::page {

// Remembers the keys of the pages that left last, and nothing of their contents: a list of keys in the order in which
// they came, chained by hash so that each is found in O(1). Guarded by the queue's mutex. All of its memory is taken at
// the start, 28 bytes for a key.
class ghost_table {
 public:
  ghost_table() = default;
  ~ghost_table();
  ghost_table(const ghost_table&) = delete;
  ghost_table& operator=(const ghost_table&) = delete;

  static bytes length_for(std::uint32_t keys_max);
  // Once, before anything else. ENOMEM.
  result<void> reserve(std::uint32_t keys_max);

  std::uint32_t size() const { return size_; }
  // Remembers a key, and forgets the oldest so that there are no more than `keys` of them and no more than were
  // reserved. A key that is there already is there twice.
  void insert(std::uint64_t key, std::uint32_t keys);
  // Forgets one of a key; false if there is none.
  bool take(std::uint64_t key);

 private:
  // Names an entry by its place + 1; 0 is none.
  using entry_name = std::uint32_t;
  struct entry {
    std::uint64_t key;
    entry_name next_in_chain;  // or in the list of those free again
    entry_name newer;
    entry_name older;
  };

  entry& at(entry_name name) { return entries_[name - 1]; }
  entry_name& chain_of(std::uint64_t key);
  void forget(entry_name name);

  void* memory_ = nullptr;
  std::span<entry> entries_;
  std::span<entry_name> chains_;
  entry_name newest_ = 0;
  entry_name oldest_ = 0;
  entry_name free_ = 0;     // used before
  std::uint32_t used_ = 0;  // entries ever used
  std::uint32_t size_ = 0;
};

}  // namespace larder::page

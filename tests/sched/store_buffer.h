// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace larder::sched {

// The stores of one thread that others cannot see yet, as x86's model has them (TSO): they reach memory in their order,
// and their own thread sees the newest.
class store_buffer {
 public:
  bool empty() const { return stores_.empty(); }
  void clear() { stores_.clear(); }

  void add(void* object, const void* value, std::size_t size) {
    store& added = stores_.emplace_back();
    LARDER_CHECK(size <= added.value.size(), "a store of %zu bytes", size);
    added.object = object;
    added.size = size;
    std::memcpy(added.value.data(), value, size);
  }
  // The newest value stored to `object`, or null.
  const void* newest(const void* object) const {
    const auto place =
        std::find_if(stores_.rbegin(), stores_.rend(), [object](const store& each) { return each.object == object; });
    return place != stores_.rend() ? place->value.data() : nullptr;
  }
  // The oldest store reaches memory; returns where.
  void* flush_oldest() {
    const store oldest = stores_.front();
    stores_.erase(stores_.begin());
    std::memcpy(oldest.object, oldest.value.data(), oldest.size);
    return oldest.object;
  }
  void flush() {
    while (!empty()) flush_oldest();
  }

 private:
  struct store {
    void* object;
    std::size_t size;
    alignas(16) std::array<std::byte, 16> value;
  };
  std::vector<store> stores_;  // oldest first
};

}  // namespace larder::sched

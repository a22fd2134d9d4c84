// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <larder/export.h>

namespace larder {

// One figure of a component: `object_cache/requests`, `slabs`, 12. The views live as long as the call that shows them.
struct stat {
  std::string_view component;
  std::string_view name;
  std::uint64_t value;
};

// Calls `show` for each figure of every live budget, cache, table, page cache and runtime of the process, in the order
// of their creation. Any thread; the figures of one component are taken together, those of different components one
// after the other. Do not create or destroy a component inside `show`.
LARDER_API void for_each_stat(const std::function<void(const stat&)>& show);

}  // namespace larder

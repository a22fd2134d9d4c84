// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <larder/stats.h>

namespace larder::tests {

// The figure of that name of a component that lives now; of the youngest, if several have that name; nothing if none.
inline std::optional<std::uint64_t> stat_value(std::string_view component, std::string_view name) {
  std::optional<std::uint64_t> value;
  for_each_stat([&](const stat& shown) {
    if (shown.component == component && shown.name == name) value = shown.value;
  });
  return value;
}

}  // namespace larder::tests

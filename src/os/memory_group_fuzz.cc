// SPDX-License-Identifier: Apache-2.0
//
// What the system says of control groups and mounts, separated by a zero: any text names files below a mount point.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "os/memory_group.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = text.find('\0');
  const std::string_view mounts = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  const larder::os::memory_group group(text.substr(0, end), mounts, "none");
  for (const std::string& file : group.limit_files()) {
    LARDER_CHECK(file.ends_with("/memory.max") || file.ends_with("/memory.limit_in_bytes"),
                 "a file that is no limit's");
    LARDER_CHECK(file.find("/../") == std::string::npos || mounts.find("..") != std::string_view::npos,
                 "a path that leaves what is mounted");
  }
  return 0;
}

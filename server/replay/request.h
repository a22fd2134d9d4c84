// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace larder::server::replay {

enum class operation : std::uint8_t { read, write, discard, flush };
inline constexpr std::size_t operation_count = 4;

// One request of a trace. Offset and length in bytes; both mean nothing for a flush.
struct request {
  operation what = operation::read;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  friend bool operator==(const request&, const request&) = default;
};

// A disk ends here at the latest, at 2 EiB: what is left of a 64-bit number keeps sums of offsets and lengths exact.
inline constexpr std::uint64_t disk_end_most = std::uint64_t{1} << 61;
// The longest read or write: longer than any disk takes at once, so what is longer is a mistake in the trace.
inline constexpr std::uint64_t transfer_most = std::uint64_t{1} << 30;

}  // namespace larder::server::replay

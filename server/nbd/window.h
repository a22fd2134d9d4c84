// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <system_error>

#include <larder/page_cache.h>
#include <larder/result.h>

#include "server/nbd/protocol.h"

// What reading and sending share: the sizes of what moves at once, and the arithmetic of pages.
namespace larder::nbd {

// Requests that are taken with one receive, and replies sent with one send: a system call costs about as much as
// answering ten of them.
inline constexpr std::size_t batch_most = 32;
// Pages that move with one system call: 128 KiB, beyond which the copy outweighs the call.
inline constexpr std::size_t window_pages = 32;
// What is loaded of a READ before its reply begins.
inline constexpr std::uint32_t load_most = 1U << 20;

inline error error_of(std::error_code code) {
  switch (code.value()) {
    case EPERM:
    case EROFS:
      return error::not_permitted;
    case ENOMEM:
      return error::no_memory;
    case EINVAL:
      return error::invalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return error::no_space;
    case EOPNOTSUPP:
      return error::unsupported;
    default:
      return error::input_output;
  }
}

inline bool would_block(std::error_code code) { return code == error_from(EAGAIN) || code == error_from(EWOULDBLOCK); }

inline std::uint64_t page_of(std::uint64_t offset) { return offset / page_size; }

// The pages that a range touches, no more than `most`.
inline std::size_t pages_of(std::uint64_t offset, std::uint64_t length, std::size_t most) {
  const std::uint64_t count = page_of(offset + length - 1) - page_of(offset) + 1;
  return static_cast<std::size_t>(std::min<std::uint64_t>(count, most));
}

// The part of a pinned page that belongs to the range from `offset`, no more than `length`.
inline iovec part_of(const page_ref& page, std::uint64_t offset, std::uint64_t length) {
  const std::size_t first = offset % page_size;
  return {page.data().data() + first,
          static_cast<std::size_t>(std::min<std::uint64_t>(page.data().size() - first, length))};
}

}  // namespace larder::nbd

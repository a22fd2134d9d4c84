// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include <larder/io.h>

namespace larder::io {

// Whole vectors, as os::read_at and its neighbours do it (os/file.h), but parking a task instead of its worker. The
// vectors stay as they are until the call returns.
result<void> read_vectors(int file, std::span<const iovec> into, std::uint64_t offset);
result<void> write_vectors(int file, std::span<const iovec> from, std::uint64_t offset);
// Several writes, of which `nth(0)` to `nth(count - 1)` tell, each perhaps more than once; those without a file are
// left out. A task has them under way at once, as far as its worker's ring has room; a plain thread makes one after the
// other.
struct file_write {
  int file = -1;
  std::span<const iovec> from;
  std::uint64_t offset = 0;
  result<void>* outcome = nullptr;
};
void write_many(std::size_t count, const std::function<file_write(std::size_t)>& nth);
// How many of them the caller has under way at once: 1 on a plain thread.
std::size_t writes_at_once();
// Makes the range read as zeros; gives its blocks back unless `keep_blocks`.
result<void> zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks);

}  // namespace larder::io

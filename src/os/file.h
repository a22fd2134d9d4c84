// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <larder/result.h>
#include <larder/units.h>

namespace larder::os {

// Owns a file descriptor of any kind.
class descriptor {
 public:
  descriptor() = default;
  explicit descriptor(int number) : number_(number) {}
  descriptor(descriptor&& other) noexcept : number_(other.release()) {}
  descriptor& operator=(descriptor&& other) noexcept;
  ~descriptor() { close(); }

  explicit operator bool() const { return number_ >= 0; }
  int number() const { return number_; }
  int release();
  void close();

 private:
  int number_ = -1;
};

enum class access : std::uint8_t { read_only, read_write };

// Through the system's page cache, or past it, straight between memory and the disk.
enum class transfer : std::uint8_t { buffered, direct };

// Opens an existing file; close-on-exec. errno's errors; EOPNOTSUPP if its file system transfers nothing directly.
result<descriptor> open_file(const std::string& path, access mode, transfer how = transfer::buffered);

// What addresses, and offsets and lengths, of direct transfers are multiples of: powers of two.
struct direct_alignment {
  std::uint64_t memory;
  std::uint64_t offset;
};
// EOPNOTSUPP if nothing of this file can be transferred directly.
result<direct_alignment> direct_alignment_of(int file);
// Buffered reads of the file read no more than they are asked for.
void expect_random_reads(int file);
// A new, empty, nameless file in the directory, gone when closed.
result<descriptor> open_nameless_file(const std::string& directory, bytes size);

struct file_facts {
  bytes size;
  bool regular;
  bool directory;
  bool block_device;
};
// A block device's size is that of the device.
result<file_facts> facts_of(int file);

// The next bytes of a file, pipe or terminal, as many as there are now; none at its end.
result<std::size_t> read_next(int file, std::span<char> into);
// Puts a file with these contents in the path's place, in one step: whoever looks sees the old file or the whole new
// one, and if it fails, the old one is untouched and nothing is left beside it. What is there and is no regular file (a
// terminal, a pipe) is written to instead.
result<void> replace_file(const std::string& path, std::string_view contents);
// Whether `replace_file` may begin; leaves nothing behind.
result<void> check_replaceable(const std::string& path);

// How many bytes all of the vectors hold.
inline std::uint64_t length_of(std::span<const iovec> vectors) {
  std::uint64_t sum = 0;
  for (const iovec& each : vectors) sum += each.iov_len;
  return sum;
}

// Whole vectors, at the offset, on the calling thread; short transfers are continued. Reading past the end gives zeros.
result<void> read_at(int file, std::span<const iovec> into, std::uint64_t offset);
result<void> write_at(int file, std::span<const iovec> from, std::uint64_t offset);
result<void> sync_data(int file);
// Makes the range read as zeros and gives its blocks back (`keep_blocks`: only the former). EOPNOTSUPP where the file
// system cannot.
result<void> zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks);
// fallocate's mode for that.
int mode_of_zeroing(bool keep_blocks);
// Raises the soft limit of open descriptors to the hard one, where the system allows it.
void raise_descriptor_limit();

}  // namespace larder::os

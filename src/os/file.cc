// SPDX-License-Identifier: Apache-2.0
#include "os/file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "os/fault.h"

namespace larder::os {

descriptor& descriptor::operator=(descriptor&& other) noexcept {
  if (this != &other) {
    close();
    number_ = other.release();
  }
  return *this;
}

int descriptor::release() { return std::exchange(number_, -1); }

void descriptor::close() {
  // The number is free whatever close says; data errors come from sync_data.
  if (number_ >= 0) ::close(std::exchange(number_, -1));
}

result<descriptor> open_file(const std::string& path, access mode, transfer how) {
  if (fault::fires(call::open)) return error_from(errno);
  const bool direct = how == transfer::direct;
  const int flags = (mode == access::read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? O_DIRECT : 0);
  // Without O_NONBLOCK, opening a FIFO by mistake would hang; with it, an io_uring may say EAGAIN instead of waiting.
  descriptor file(::open(path.c_str(), flags | O_NONBLOCK));
  if (!file || ::fcntl(file.number(), F_SETFL, flags) != 0) {
    return error_from(direct && errno == EINVAL ? EOPNOTSUPP : errno);
  }
  return file;
}

result<direct_alignment> direct_alignment_of(int file) {
  if (fault::fires(call::stat)) return error_from(errno);
#ifdef STATX_DIOALIGN
  struct statx status {};
  if (::statx(file, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN) != 0) {
    if (status.stx_dio_offset_align == 0) return error_from(EOPNOTSUPP);
    return direct_alignment{.memory = std::max(status.stx_dio_mem_align, 1U), .offset = status.stx_dio_offset_align};
  }
#endif
  // A kernel or file system that does not say. Its blocks are no larger, or it could not map their pages.
  return direct_alignment{.memory = page_size, .offset = page_size};
}

void expect_random_reads(int file) { static_cast<void>(::posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM)); }

result<descriptor> open_nameless_file(const std::string& directory, bytes size) {
  if (fault::fires(call::open)) return error_from(errno);
  descriptor file(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file && errno == EOPNOTSUPP) {
    // A file system without nameless files: one with a name, for an instant.
    std::string path = directory + "/larder-XXXXXX";
    file = descriptor(::mkostemp(path.data(), O_CLOEXEC));
    if (file) ::unlink(path.c_str());
  }
  if (!file) return error_from(errno);
  if (::ftruncate(file.number(), static_cast<off_t>(size.count)) != 0) return error_from(errno);
  return file;
}

result<file_facts> facts_of(int file) {
  if (fault::fires(call::stat)) return error_from(errno);
  struct stat status {};
  if (::fstat(file, &status) != 0) return error_from(errno);
  file_facts facts{.size = {static_cast<std::uint64_t>(status.st_size)},
                   .regular = S_ISREG(status.st_mode),
                   .directory = S_ISDIR(status.st_mode),
                   .block_device = S_ISBLK(status.st_mode)};
  if (facts.block_device && ::ioctl(file, BLKGETSIZE64, &facts.size.count) != 0) return error_from(errno);
  return facts;
}

namespace {

constexpr std::size_t vectors_at_once = 64;

// Repeats `transfer` (preadv or pwritev) until every vector is through. `at_end` handles a transfer of nothing.
template <typename Transfer, typename AtEnd>
result<void> transfer_whole(std::span<const iovec> vectors, std::uint64_t offset, Transfer transfer, AtEnd at_end) {
  std::array<iovec, vectors_at_once> window{};
  std::size_t index = 0;   // the first vector that is not through
  std::size_t within = 0;  // how much of it is
  while (index < vectors.size()) {
    if (vectors[index].iov_len == 0) {  // a transfer of nothing must mean the end of the file
      ++index;
      continue;
    }
    const std::size_t count = std::min(vectors.size() - index, vectors_at_once);
    std::copy_n(vectors.begin() + static_cast<std::ptrdiff_t>(index), count, window.begin());
    window[0].iov_base = static_cast<char*>(window[0].iov_base) + within;
    window[0].iov_len -= within;
    const ssize_t moved = transfer(window.data(), static_cast<int>(count), static_cast<off_t>(offset));
    if (moved < 0) {
      if (errno == EINTR) continue;
      return error_from(errno);
    }
    if (moved == 0) return at_end(vectors.subspan(index), within);
    offset += static_cast<std::uint64_t>(moved);
    for (auto left = static_cast<std::size_t>(moved); left > 0;) {
      const std::size_t step = std::min(left, vectors[index].iov_len - within);
      left -= step;
      within += step;
      if (within == vectors[index].iov_len) {
        ++index;
        within = 0;
      }
    }
  }
  return {};
}

}  // namespace

result<void> read_at(int file, std::span<const iovec> into, std::uint64_t offset) {
  if (fault::fires(call::read)) return error_from(errno);
  return transfer_whole(
      into, offset, [file](const iovec* vectors, int count, off_t at) { return ::preadv(file, vectors, count, at); },
      [](std::span<const iovec> rest, std::size_t within) -> result<void> {
        for (const iovec& vector : rest) {
          std::memset(static_cast<char*>(vector.iov_base) + within, 0, vector.iov_len - within);
          within = 0;
        }
        return {};
      });
}

result<void> write_at(int file, std::span<const iovec> from, std::uint64_t offset) {
  if (fault::fires(call::write)) return error_from(errno);
  return transfer_whole(
      from, offset, [file](const iovec* vectors, int count, off_t at) { return ::pwritev(file, vectors, count, at); },
      [](std::span<const iovec>, std::size_t) -> result<void> { return error_from(EIO); });
}

result<void> sync_data(int file) {
  if (fault::fires(call::sync)) return error_from(errno);
  if (::fdatasync(file) != 0) return error_from(errno);
  return {};
}

int mode_of_zeroing(bool keep_blocks) {
  return (keep_blocks ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE) | FALLOC_FL_KEEP_SIZE;
}

result<void> zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks) {
  if (fault::fires(call::allocate)) return error_from(errno);
  const int mode = mode_of_zeroing(keep_blocks);
  int outcome = 0;
  do {
    outcome = ::fallocate(file, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (outcome != 0 && errno == EINTR);
  if (outcome != 0) return error_from(errno);
  return {};
}

void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace larder::os

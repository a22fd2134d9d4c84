// SPDX-License-Identifier: Apache-2.0
//
// Files. A direct one has two descriptors of the same file. What is aligned goes through the direct one: an offset, and
// vectors whose addresses and lengths all are multiples of what the disk wants, up to the last such multiple. What is
// left goes through the buffered one: after the aligned part the rest of the last vector, as at the end of a file, or
// all of a call that is not aligned.
//
// The two agree, for the kernel writes what is buffered and dirty back before a direct transfer of the same bytes, and
// drops what is buffered after a direct write. It cannot promise that for bytes that are written both ways at the same
// time; but a page cache never has two writes of the same bytes in flight, and which way a byte of a page is written
// does not change: the end of the file is always buffered, all else always direct.
#include <cstddef>
#include <cstdint>
#include <utility>

#include <larder/backing.h>

#include "os/file.h"
#include "task/io.h"

namespace larder {
namespace {

using transfer_function = result<void> (*)(int file, std::span<const iovec> vectors, std::uint64_t offset);

result<os::descriptor> open_checked(const std::string& path, bool read_only, os::transfer how) {
  return os::open_file(path, read_only ? os::access::read_only : os::access::read_write, how);
}

}  // namespace

struct file_backing::state {
  bool is_direct() const { return static_cast<bool>(direct); }
  // How much of the vectors, from their beginning, is to go directly.
  std::uint64_t direct_length(std::span<const iovec> vectors, std::uint64_t offset) const;
  result<void> move(transfer_function transfer, std::span<const iovec> vectors, std::uint64_t offset) const;
  // The descriptor through which all of the vectors go; -1 if they go both ways.
  int way_of(std::span<const iovec> vectors, std::uint64_t offset) const;

  os::descriptor file;    // buffered
  os::descriptor direct;  // none: all is buffered
  os::direct_alignment alignment{};
  bytes size;
  bool read_only = false;
};

std::uint64_t file_backing::state::direct_length(std::span<const iovec> vectors, std::uint64_t offset) const {
  if (!is_direct() || vectors.empty() || (offset & (alignment.offset - 1)) != 0) return 0;
  std::uint64_t sum = 0;
  for (const iovec& each : vectors) {
    if ((reinterpret_cast<std::uintptr_t>(each.iov_base) & (alignment.memory - 1)) != 0) return 0;
    if ((sum & (alignment.offset - 1)) != 0) return 0;  // one before the last has an end that is not aligned
    sum += each.iov_len;
  }
  return sum & ~(alignment.offset - 1);
}

int file_backing::state::way_of(std::span<const iovec> vectors, std::uint64_t offset) const {
  const std::uint64_t whole = direct_length(vectors, offset);
  if (whole == 0) return file.number();
  return whole == os::length_of(vectors) ? direct.number() : -1;
}

result<void> file_backing::state::move(transfer_function transfer, std::span<const iovec> vectors,
                                       std::uint64_t offset) const {
  const std::uint64_t whole = direct_length(vectors, offset);
  if (whole == 0) return transfer(file.number(), vectors, offset);
  iovec last = vectors.back();
  const std::uint64_t before_last = os::length_of(vectors.first(vectors.size() - 1));
  const auto cut = static_cast<std::size_t>(whole - before_last);  // of the last vector goes directly
  if (cut == last.iov_len) return transfer(direct.number(), vectors, offset);
  if (before_last > 0) {
    if (const auto moved = transfer(direct.number(), vectors.first(vectors.size() - 1), offset); !moved) return moved;
  }
  if (cut > 0) {
    const iovec aligned{last.iov_base, cut};
    const auto moved = transfer(direct.number(), std::span(&aligned, 1), offset + before_last);
    if (!moved) return moved;
  }
  last = {static_cast<std::byte*>(last.iov_base) + cut, last.iov_len - cut};
  return transfer(file.number(), std::span(&last, 1), offset + whole);
}

result<std::unique_ptr<file_backing>> file_backing::open(const std::string& path, bool read_only, file_transfer how) {
  auto file = open_checked(path, read_only, os::transfer::buffered);
  if (!file) return file.error();
  auto opened = adopt(file->release(), read_only);
  if (!opened || how == file_transfer::buffered) return opened;
  auto direct = open_checked(path, read_only, os::transfer::direct);
  if (!direct) return direct.error();
  const auto alignment = os::direct_alignment_of(direct->number());
  if (!alignment) return alignment.error();
  state& made = *(*opened)->state_;
  made.direct = *std::move(direct);
  made.alignment = *alignment;
  os::expect_random_reads(made.file.number());
  return opened;
}

result<std::unique_ptr<file_backing>> file_backing::adopt(int descriptor, bool read_only) {
  os::descriptor file(descriptor);
  const auto facts = os::facts_of(file.number());
  if (!facts) return facts.error();
  if (facts->directory) return error_from(EISDIR);
  if (!facts->regular && !facts->block_device) return error_from(EINVAL);
  auto opened = std::make_unique<state>();
  opened->file = std::move(file);
  opened->size = facts->size;
  opened->read_only = read_only;
  return std::unique_ptr<file_backing>(new file_backing(std::move(opened)));
}

file_backing::file_backing(std::unique_ptr<state> opened) : state_(std::move(opened)) {}
file_backing::~file_backing() = default;

bool file_backing::read_only() const { return state_->read_only; }
bytes file_backing::size() const { return state_->size; }

result<void> file_backing::read(std::span<const iovec> into, std::uint64_t offset) {
  return state_->move(io::read_vectors, into, offset);
}

result<void> file_backing::write(std::span<const iovec> from, std::uint64_t offset) {
  if (state_->read_only) return error_from(EROFS);
  return state_->move(io::write_vectors, from, offset);
}

std::size_t file_backing::writes_at_once() const { return io::writes_at_once(); }

void file_backing::write_many(std::span<backing_write> writes) {
  if (state_->read_only) {
    for (backing_write& each : writes) each.outcome = error_from(EROFS);
    return;
  }
  for (backing_write& each : writes) {
    if (state_->way_of(each.from, each.offset) < 0)
      each.outcome = state_->move(io::write_vectors, each.from, each.offset);
  }
  io::write_many(writes.size(), [&](std::size_t i) -> io::file_write {
    backing_write& each = writes[i];
    return {.file = state_->way_of(each.from, each.offset),
            .from = each.from,
            .offset = each.offset,
            .outcome = &each.outcome};
  });
}

result<void> file_backing::discard(std::uint64_t offset, bytes length) {
  if (state_->read_only) return error_from(EROFS);
  return io::zero_range(state_->file.number(), offset, length.count, false);
}

result<void> file_backing::zero(std::uint64_t offset, bytes length) {
  if (state_->read_only) return error_from(EROFS);
  return io::zero_range(state_->file.number(), offset, length.count, true);
}

// Of the file, by whichever descriptor it was written.
result<void> file_backing::flush() { return state_->read_only ? result<void>() : io::sync(state_->file.number()); }

}  // namespace larder

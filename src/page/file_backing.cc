// SPDX-License-Identifier: Apache-2.0
#include <larder/backing.h>

#include "os/file.h"
#include "task/io.h"

namespace larder {

struct file_backing::state {
  os::descriptor file;
  bytes size;
  bool read_only = false;
};

result<std::unique_ptr<file_backing>> file_backing::open(const std::string& path, bool read_only) {
  auto file = os::open_file(path, read_only ? os::access::read_only : os::access::read_write);
  if (!file) return file.error();
  return adopt(file->release(), read_only);
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
  return io::read_vectors(state_->file.number(), into, offset);
}

result<void> file_backing::write(std::span<const iovec> from, std::uint64_t offset) {
  if (state_->read_only) return error_from(EROFS);
  return io::write_vectors(state_->file.number(), from, offset);
}

result<void> file_backing::discard(std::uint64_t offset, bytes length) {
  if (state_->read_only) return error_from(EROFS);
  return io::zero_range(state_->file.number(), offset, length.count, false);
}

result<void> file_backing::zero(std::uint64_t offset, bytes length) {
  if (state_->read_only) return error_from(EROFS);
  return io::zero_range(state_->file.number(), offset, length.count, true);
}

result<void> file_backing::flush() { return state_->read_only ? result<void>() : io::sync(state_->file.number()); }

}  // namespace larder

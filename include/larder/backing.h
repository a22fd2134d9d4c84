// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

// One of several writes that are asked for together. The callee sets the outcome, and changes nothing else.
struct backing_write {
  std::span<const iovec> from;
  std::uint64_t offset = 0;
  result<void> outcome = {};
};

// What the pages of a file are read from and written to. Derive from it to cache something of your own.
//
// Any thread or task may call any function at any time; a call may park the task or block the thread, and must not wait
// for memory of the cache's budget. The page cache never has two calls in flight that write or discard the same bytes,
// keeps within `size()`, and holds no lock while it calls. Errors are errno's, of the generic category.
class LARDER_API backing {
 public:
  virtual ~backing() = default;
  backing(const backing&) = delete;
  backing& operator=(const backing&) = delete;

  // Does not change while a cache has it open.
  virtual bytes size() const = 0;
  // All of the vectors or an error; what was written is read from then on, and may be lost in a crash until `flush`.
  virtual result<void> read(std::span<const iovec> into, std::uint64_t offset) = 0;
  virtual result<void> write(std::span<const iovec> from, std::uint64_t offset) = 0;
  // Makes all of these writes, which are of different bytes, and sets the outcome of each, which is good before. Here
  // one after the other. Whoever has more than one under way overrides this, and says in `writes_at_once` how many at
  // most for the thread or task that calls; where that is 1, `write` is called instead.
  virtual void write_many(std::span<backing_write> writes);
  virtual std::size_t writes_at_once() const { return 1; }
  // The range reads as zeros afterwards; `discard` also gives its blocks back, `zero` keeps them. EOPNOTSUPP if it has
  // no better way than writing zeros.
  virtual result<void> discard(std::uint64_t offset, bytes length) = 0;
  virtual result<void> zero(std::uint64_t offset, bytes length) = 0;
  // What was written before is durable afterwards.
  virtual result<void> flush() = 0;

 protected:
  backing() = default;
};

// How a file's bytes get to its disk and back.
enum class file_transfer : unsigned char {
  buffered,  // through the system's page cache, whose memory no budget knows of
  direct,    // past it (O_DIRECT): what the page cache of this library holds is not held twice
};

// A regular file or block device. On a task it is read and written by the worker's io_uring, else by pread and pwrite.
class LARDER_API file_backing final : public backing {
 public:
  // Errors: what open says; EISDIR for a directory; EINVAL for what is neither a regular file nor a block device;
  // EOPNOTSUPP if `direct` is asked for and the file system cannot do it.
  //
  // With `direct`, what is not aligned as the disk wants it is buffered all the same, and the two agree: a page cache's
  // pages are aligned, but for the end of a file whose size is no multiple of the disk's blocks, and for the rest of a
  // page that is not in memory and written in part.
  static result<std::unique_ptr<file_backing>> open(const std::string& path, bool read_only,
                                                    file_transfer how = file_transfer::buffered);
  // Takes over an open descriptor of such a file, opened without O_DIRECT.
  static result<std::unique_ptr<file_backing>> adopt(int descriptor, bool read_only);
  ~file_backing() override;

  bool read_only() const;
  bytes size() const override;
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override;
  result<void> write(std::span<const iovec> from,
                     std::uint64_t offset) override;  // EROFS if read-only, as the next three
  void write_many(std::span<backing_write> writes) override;
  std::size_t writes_at_once() const override;  // on a task many
  result<void> discard(std::uint64_t offset, bytes length) override;
  result<void> zero(std::uint64_t offset, bytes length) override;
  result<void> flush() override;

 private:
  struct state;
  explicit file_backing(std::unique_ptr<state> opened);
  const std::unique_ptr<state> state_;
};

// Zeroed memory in the place of a file, for tests and examples. Its whole size is charged, if a budget is given.
class LARDER_API memory_backing final : public backing {
 public:
  // ENOMEM if the budget or the system has no room.
  static result<std::unique_ptr<memory_backing>> create(bytes size, memory_budget* budget = nullptr);
  ~memory_backing() override;

  bytes size() const override;
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override;
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override;
  result<void> discard(std::uint64_t offset, bytes length) override;
  result<void> zero(std::uint64_t offset, bytes length) override;
  result<void> flush() override;

 private:
  struct state;
  explicit memory_backing(std::unique_ptr<state> mapped);
  const std::unique_ptr<state> state_;
};

}  // namespace larder

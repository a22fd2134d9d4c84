// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/backing.h>

#include "server/replay/request.h"

namespace larder::server::replay {

// A disk that keeps nothing: what is read from it is whatever the memory held before. So a replay takes no I/O, and the
// pages of its cache no memory, for nobody touches them.
class blank_disk final : public backing {
 public:
  bytes size() const override { return {disk_end_most}; }
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override;
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override;
  result<void> discard(std::uint64_t, bytes) override { return {}; }
  result<void> zero(std::uint64_t, bytes) override { return {}; }
  result<void> flush() override { return {}; }

  std::uint64_t reads() const { return reads_; }
  bytes length_read() const { return length_read_; }
  bytes length_written() const { return length_written_; }

 private:
  std::uint64_t reads_ = 0;
  bytes length_read_;
  bytes length_written_;
};

}  // namespace larder::server::replay

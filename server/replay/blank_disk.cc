// SPDX-License-Identifier: Apache-2.0
#include "server/replay/blank_disk.h"

namespace larder::server::replay {
namespace {

bytes length_of(std::span<const iovec> vectors) {
  bytes sum;
  for (const iovec& each : vectors) sum += bytes{each.iov_len};
  return sum;
}

}  // namespace

result<void> blank_disk::read(std::span<const iovec> into, std::uint64_t) {
  ++reads_;
  length_read_ += length_of(into);
  return {};
}

result<void> blank_disk::write(std::span<const iovec> from, std::uint64_t) {
  length_written_ += length_of(from);
  return {};
}

}  // namespace larder::server::replay

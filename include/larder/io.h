// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <larder/export.h>
#include <larder/result.h>
#include <larder/units.h>

// Input and output that parks the calling task while the kernel works, by the io_uring of its worker. On a plain thread
// the same calls block it. Descriptors are the caller's; errors are those of the system call of that name.
namespace larder::io {

// All of `into` from a file, at `offset`; what lies past the end reads as zeros.
LARDER_API result<void> read(int file, std::span<std::byte> into, std::uint64_t offset);
// All of `from` to a file, at `offset`.
LARDER_API result<void> write(int file, std::span<const std::byte> from, std::uint64_t offset);
// Returns when what was written is on the device (fdatasync).
LARDER_API result<void> sync(int file);

// What follows is for sockets in non-blocking mode. A wait ends with ETIMEDOUT when the deadline comes first; one that
// has passed makes it a try. It can be cancelled (task::cancel). A `send` that ends early may have sent a part.
//
// Some bytes of a stream, at least one; 0 when the peer has finished sending.
LARDER_API result<std::size_t> receive(int socket, std::span<std::byte> into, time_point deadline = no_deadline);
// All of `from`.
LARDER_API result<void> send(int socket, std::span<const std::byte> from, time_point deadline = no_deadline);
// The next connection; its descriptor, non-blocking and close-on-exec, is the caller's to close.
LARDER_API result<int> accept(int listener, time_point deadline = no_deadline);
// To a sockaddr of the socket's family, as connect(2) takes it. A socket whose connection failed or ended early is of
// no further use.
LARDER_API result<void> connect(int socket, std::span<const std::byte> address, time_point deadline = no_deadline);

}  // namespace larder::io

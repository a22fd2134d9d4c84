// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "os/file.h"
#include "server/nbd/protocol.h"

namespace larder::tests {

// A small NBD client that blocks its thread, for tests of a server in the same process: it makes its system calls
// itself, so that armed faults (os/fault.h) hit the server only. A server that says nothing for half a minute counts as
// gone.
class nbd_client {
 public:
  // Connects to a unix socket; dies if nobody listens there.
  explicit nbd_client(const std::string& path);

  // The handshake, ending with GO for the export of that name. False if the server said no or hung up.
  bool go(std::string_view name = {});
  std::uint64_t size() const { return size_; }
  std::uint16_t export_flags() const { return export_flags_; }

  struct answer {
    std::uint64_t cookie = 0;
    nbd::error code = nbd::error::none;
    std::vector<std::byte> data;
  };
  // Sends a request, with cookies 1, 2, …; 0 if the server has hung up.
  std::uint64_t ask(nbd::command what, std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0,
                    std::span<const std::byte> payload = {});
  // The next answer in the order in which the server gives them; nothing if it has hung up.
  std::optional<answer> next_answer();

  // A request and its answer, with nothing else under way; nothing if the server hung up.
  std::optional<nbd::error> read(std::uint64_t offset, std::span<std::byte> into);
  std::optional<nbd::error> write(std::uint64_t offset, std::span<const std::byte> from, std::uint16_t flags = 0);
  std::optional<nbd::error> flush();
  std::optional<nbd::error> trim(std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0);
  std::optional<nbd::error> write_zeroes(std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0);

  // All of it, or false.
  bool send_bytes(std::span<const std::byte> bytes);
  bool receive_bytes(std::span<std::byte> into);
  // Reads on until the server hangs up; false if it does not.
  bool hung_up();
  // Says that no more will be sent.
  void finish_sending();
  void close() { socket_.close(); }

 private:
  std::optional<nbd::error> exchange(nbd::command what, std::uint64_t offset, std::uint32_t length, std::uint16_t flags,
                                     std::span<const std::byte> payload, std::span<std::byte> into);

  os::descriptor socket_;
  std::uint64_t size_ = 0;
  std::uint16_t export_flags_ = 0;
  std::uint64_t last_cookie_ = 0;
  std::map<std::uint64_t, std::uint32_t> reads_;  // what each READ under way asked for
};

}  // namespace larder::tests

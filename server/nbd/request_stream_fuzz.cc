// SPDX-License-Identifier: Apache-2.0
//
// A client in transmission that sends any bytes and hangs up: the server does not die, and forgets it. One service,
// with a listener on a unix socket, is used for all inputs.
#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "os/socket.h"
#include "server/service.h"

namespace {

using namespace larder;

constexpr bytes disk_size = 512_KiB;

class running_server {
 public:
  running_server() : path_("/tmp/larder-fuzz-" + std::to_string(::getpid()) + ".sock") {
    std::vector<server::disk> disks;
    auto memory = memory_backing::create(disk_size);
    LARDER_CHECK(static_cast<bool>(memory), "no memory for a disk");
    disks.push_back({"disk", *std::move(memory), false});
    // Twice the least: sanitizers' stacks are large.
    const bytes limit = server::service::least_memory(1, 1).first * 2;
    service_ = std::make_unique<server::service>(limit, server::layout::of(limit, 1, 1), std::move(disks));
    auto listener = os::listen_unix(path_);
    LARDER_CHECK(static_cast<bool>(listener), "cannot listen on %s", path_.c_str());
    service_->listen(*std::move(listener));
  }
  ~running_server() {
    (void)service_->stop(std::chrono::milliseconds(100));
    os::remove_socket_file(path_);
  }

  void serve(std::span<const std::byte> stream) {
    auto client = os::connect_unix(path_);
    LARDER_CHECK(static_cast<bool>(client), "the server listens no more");
    const int socket = client->number();
    os::wait_for_events(socket, POLLIN);  // greeted, and so counted among the connections
    send_all(socket, head());
    send_all(socket, stream);
    // Its answers are left unread: they must not keep anything.
    client->close();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (auto now = service_->now(); now.in_flight + now.connections + now.handles_used > 0; now = service_->now()) {
      LARDER_CHECK(std::chrono::steady_clock::now() < deadline, "a client that has gone is not forgotten");
      std::this_thread::yield();
    }
    const auto pins = service_->now().pages.pins_admitted;
    LARDER_CHECK(pins == 0, "%u pins are left", pins);
  }

 private:
  // The client's flags, and EXPORT_NAME with the empty name.
  static std::span<const std::byte> head() {
    static const auto bytes = [] {
      std::array<std::byte, 4 + nbd::option_header_size> made{};
      std::byte* at = nbd::store_big_endian(made.data(), std::uint32_t{3});
      at = nbd::store_big_endian(at, nbd::option_magic);
      nbd::store_big_endian(at, static_cast<std::uint32_t>(nbd::option::export_name));
      return made;
    }();
    return bytes;
  }
  // Until the server hangs up, and reading what it answers in the meantime so that it does not stop listening.
  static void send_all(int socket, std::span<const std::byte> bytes) {
    std::array<std::byte, 65536> answers;
    while (!bytes.empty()) {
      const iovec from{const_cast<std::byte*>(bytes.data()), bytes.size()};
      const auto sent = os::send_now(socket, std::span(&from, 1));
      if (sent) {
        bytes = bytes.subspan(*sent);
        continue;
      }
      if (sent.error() != error_from(EAGAIN)) return;
      const iovec into{answers.data(), answers.size()};
      const auto received = os::receive_now(socket, std::span(&into, 1));
      if (received && *received == 0) return;
      std::this_thread::yield();
    }
  }

  const std::string path_;
  std::unique_ptr<server::service> service_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static running_server server;
  server.serve(std::as_bytes(std::span(data, size)));
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/support/nbd_client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace larder::tests {
namespace {

using nbd::load_big_endian;
using nbd::store_big_endian;

constexpr timeval patience{30, 0};

}  // namespace

nbd_client::nbd_client(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  LARDER_CHECK(path.size() < sizeof address.sun_path, "a socket's path of %zu bytes", path.size());
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ::setsockopt(socket_.number(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_.number(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const int outcome = ::connect(socket_.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  LARDER_CHECK(outcome == 0, "no server listens at %s", path.c_str());
}

bool nbd_client::go(std::string_view name) {
  std::array<std::byte, nbd::greeting_size> greeting;
  if (!receive_bytes(greeting)) return false;
  std::vector<std::byte> message(4 + nbd::option_header_size + 4 + name.size() + 2);
  std::byte* at = store_big_endian(message.data(), std::uint32_t{nbd::flag_fixed_newstyle | nbd::flag_no_zeroes});
  at = store_big_endian(at, nbd::option_magic);
  at = store_big_endian(at, static_cast<std::uint32_t>(nbd::option::go));
  at = store_big_endian(at, static_cast<std::uint32_t>(4 + name.size() + 2));
  at = store_big_endian(at, static_cast<std::uint32_t>(name.size()));
  std::memcpy(at, name.data(), name.size());
  store_big_endian(at + name.size(), std::uint16_t{0});
  if (!send_bytes(message)) return false;
  for (;;) {
    std::array<std::byte, nbd::option_reply_header_size> header;
    if (!receive_bytes(header)) return false;
    const auto type = load_big_endian<std::uint32_t>(header.data() + 12);
    std::vector<std::byte> data(load_big_endian<std::uint32_t>(header.data() + 16));
    if (!receive_bytes(data)) return false;
    if (type == nbd::reply_ack) return true;
    if (type != nbd::reply_info) return false;
    if (data.size() == 12 && load_big_endian<std::uint16_t>(data.data()) == nbd::info_export) {
      size_ = load_big_endian<std::uint64_t>(data.data() + 2);
      export_flags_ = load_big_endian<std::uint16_t>(data.data() + 10);
    }
  }
}

std::uint64_t nbd_client::ask(nbd::command what, std::uint64_t offset, std::uint32_t length, std::uint16_t flags,
                              std::span<const std::byte> payload) {
  std::array<std::byte, nbd::request_size> header;
  const std::uint64_t cookie = ++last_cookie_;
  std::byte* at = store_big_endian(header.data(), nbd::request_magic);
  at = store_big_endian(at, flags);
  at = store_big_endian(at, static_cast<std::uint16_t>(what));
  at = store_big_endian(at, cookie);
  at = store_big_endian(at, offset);
  store_big_endian(at, length);
  if (what == nbd::command::read) reads_[cookie] = length;
  return send_bytes(header) && send_bytes(payload) ? cookie : 0;
}

std::optional<nbd_client::answer> nbd_client::next_answer() {
  std::array<std::byte, nbd::simple_reply_size> header;
  if (!receive_bytes(header)) return std::nullopt;
  LARDER_CHECK(load_big_endian<std::uint32_t>(header.data()) == nbd::simple_reply_magic, "no reply begins like this");
  answer got;
  got.code = static_cast<nbd::error>(load_big_endian<std::uint32_t>(header.data() + 4));
  got.cookie = load_big_endian<std::uint64_t>(header.data() + 8);
  if (const auto read = reads_.find(got.cookie); read != reads_.end()) {
    if (got.code == nbd::error::none) got.data.resize(read->second);
    reads_.erase(read);
    if (!receive_bytes(got.data)) return std::nullopt;
  }
  return got;
}

std::optional<nbd::error> nbd_client::exchange(nbd::command what, std::uint64_t offset, std::uint32_t length,
                                               std::uint16_t flags, std::span<const std::byte> payload,
                                               std::span<std::byte> into) {
  const std::uint64_t cookie = ask(what, offset, length, flags, payload);
  if (cookie == 0) return std::nullopt;
  const auto got = next_answer();
  if (!got) return std::nullopt;
  LARDER_CHECK(got->cookie == cookie, "an answer to request %llu, which nobody waits for",
               static_cast<unsigned long long>(got->cookie));
  std::copy(got->data.begin(), got->data.end(), into.begin());
  return got->code;
}

std::optional<nbd::error> nbd_client::read(std::uint64_t offset, std::span<std::byte> into) {
  return exchange(nbd::command::read, offset, static_cast<std::uint32_t>(into.size()), 0, {}, into);
}

std::optional<nbd::error> nbd_client::write(std::uint64_t offset, std::span<const std::byte> from,
                                            std::uint16_t flags) {
  return exchange(nbd::command::write, offset, static_cast<std::uint32_t>(from.size()), flags, from, {});
}

std::optional<nbd::error> nbd_client::flush() { return exchange(nbd::command::flush, 0, 0, 0, {}, {}); }

std::optional<nbd::error> nbd_client::trim(std::uint64_t offset, std::uint32_t length, std::uint16_t flags) {
  return exchange(nbd::command::trim, offset, length, flags, {}, {});
}

std::optional<nbd::error> nbd_client::write_zeroes(std::uint64_t offset, std::uint32_t length, std::uint16_t flags) {
  return exchange(nbd::command::write_zeroes, offset, length, flags, {}, {});
}

bool nbd_client::send_bytes(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t moved = ::send(socket_.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (moved <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(moved));
  }
  return true;
}

bool nbd_client::receive_bytes(std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t moved = ::recv(socket_.number(), into.data(), into.size(), 0);
    if (moved <= 0) return false;
    into = into.subspan(static_cast<std::size_t>(moved));
  }
  return true;
}

bool nbd_client::hung_up() {
  std::array<std::byte, 65536> unwanted;
  for (;;) {
    const ssize_t moved = ::recv(socket_.number(), unwanted.data(), unwanted.size(), 0);
    if (moved == 0) return true;
    if (moved < 0) return errno == ECONNRESET;
  }
}

void nbd_client::finish_sending() { ::shutdown(socket_.number(), SHUT_WR); }

}  // namespace larder::tests

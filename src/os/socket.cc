// SPDX-License-Identifier: Apache-2.0
#include "os/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "os/clock.h"
#include "os/events.h"
#include "os/fault.h"

namespace larder::os {
namespace {

static_assert(event_readable == POLLIN && event_writable == POLLOUT && event_hung_up == POLLHUP);

constexpr int backlog = 1024;  // a burst of connecting guests; the kernel caps it at net.core.somaxconn

result<descriptor> new_socket(int family) {
  if (fault::fires(call::socket)) return error_from(errno);
  const int number = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (number < 0) return error_from(errno);
  return descriptor(number);
}

result<void> bind_and_listen(int socket, const sockaddr* address, socklen_t length) {
  if (fault::fires(call::bind) || ::bind(socket, address, length) != 0) return error_from(errno);
  if (fault::fires(call::listen) || ::listen(socket, backlog) != 0) return error_from(errno);
  return {};
}

result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return error_from(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

namespace {

// A process that was killed may listen for a moment longer, while the kernel takes its io_uring apart.
bool is_listened_on(const std::string& path) {
  constexpr int looks = 40;
  constexpr std::chrono::milliseconds pause{25};
  for (int look = 0; look < looks; ++look) {
    if (look > 0) std::this_thread::sleep_for(pause);
    const auto probe = connect_unix(path);
    if (!probe && probe.error() == error_from(ECONNREFUSED)) return false;
  }
  return true;
}

}  // namespace

result<descriptor> listen_unix(const std::string& path) {
  const auto address = unix_address(path);
  if (!address) return address.error();
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return error_from(EEXIST);
    if (is_listened_on(path)) return error_from(EADDRINUSE);
    remove_socket_file(path);
  }
  auto socket = new_socket(AF_UNIX);
  if (!socket) return socket.error();
  const auto bound = bind_and_listen(socket->number(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
  if (!bound) {
    if (bound.error() != error_from(EADDRINUSE)) remove_socket_file(path);
    return bound.error();
  }
  return socket;
}

void remove_socket_file(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) ::unlink(path.c_str());
}

result<tcp_listener> listen_tcp(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  if (::getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &found) != 0) {
    return error_from(EINVAL);
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  auto socket = new_socket(found->ai_family);
  if (!socket) return socket.error();
  const int on = 1;
  ::setsockopt(socket->number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (found->ai_family == AF_INET6) ::setsockopt(socket->number(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  const auto bound = bind_and_listen(socket->number(), found->ai_addr, found->ai_addrlen);
  if (!bound) return bound.error();
  sockaddr_storage taken{};
  socklen_t length = sizeof taken;
  if (::getsockname(socket->number(), reinterpret_cast<sockaddr*>(&taken), &length) != 0) return error_from(errno);
  char numeric[NI_MAXHOST] = {};
  char number[NI_MAXSERV] = {};
  if (::getnameinfo(reinterpret_cast<sockaddr*>(&taken), length, numeric, sizeof numeric, number, sizeof number,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return error_from(EINVAL);
  }
  return tcp_listener{std::move(*socket), numeric, static_cast<std::uint16_t>(std::stoi(number))};
}

result<descriptor> connect_unix(const std::string& path) {
  const auto address = unix_address(path);
  if (!address) return address.error();
  auto socket = new_socket(AF_UNIX);
  if (!socket) return socket.error();
  if (fault::fires(call::connect) ||
      ::connect(socket->number(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return error_from(errno);
  }
  return socket;
}

result<std::pair<descriptor, descriptor>> socket_pair() {
  if (fault::fires(call::socket)) return error_from(errno);
  int numbers[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, numbers) != 0) return error_from(errno);
  return std::pair{descriptor(numbers[0]), descriptor(numbers[1])};
}

result<descriptor> accept_one(int listener) {
  if (fault::fires(call::accept)) return error_from(errno);
  const int number = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (number < 0) return error_from(errno);
  return descriptor(number);
}

void send_without_delay(int socket) {
  const int on = 1;
  // Fails on unix sockets, which have no such delay.
  (void)::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

namespace {

template <typename Vector>
msghdr message_of(std::span<Vector> vectors) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(vectors.data());
  message.msg_iovlen = vectors.size();
  return message;
}

}  // namespace

result<std::size_t> receive_now(int socket, std::span<const iovec> into) {
  if (fault::fires(call::receive)) return error_from(errno);
  msghdr message = message_of(into);
  for (;;) {
    const ssize_t moved = ::recvmsg(socket, &message, MSG_DONTWAIT);
    if (moved >= 0) return static_cast<std::size_t>(moved);
    if (errno != EINTR) return error_from(errno);
  }
}

result<std::size_t> send_now(int socket, std::span<const iovec> from) {
  if (fault::fires(call::send)) return error_from(errno);
  const msghdr message = message_of(from);
  for (;;) {
    const ssize_t moved = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (moved >= 0) return static_cast<std::size_t>(moved);
    if (errno != EINTR) return error_from(errno);
  }
}

result<void> connect_now(int socket, std::span<const std::byte> address) {
  if (fault::fires(call::connect) || ::connect(socket, reinterpret_cast<const sockaddr*>(address.data()),
                                               static_cast<socklen_t>(address.size())) != 0) {
    return error_from(errno);
  }
  return {};
}

result<void> pending_error(int socket) {
  int error_number = 0;
  socklen_t length = sizeof error_number;
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error_number, &length) != 0) return error_from(errno);
  if (error_number != 0) return error_from(error_number);
  return {};
}

int wait_for_events(int socket, short events, time_point deadline) {
  pollfd wanted{socket, events, 0};
  for (;;) {
    timespec left{};
    if (deadline != no_deadline) {
      const auto rest = std::max(deadline - now(), std::chrono::nanoseconds(0));
      const auto whole = std::chrono::duration_cast<std::chrono::seconds>(rest);
      left = {whole.count(), static_cast<long>((rest - whole).count())};
    }
    if (::ppoll(&wanted, 1, deadline == no_deadline ? nullptr : &left, nullptr) >= 0 || errno != EINTR) {
      return wanted.revents;
    }
  }
}

void shut_down(int socket) { ::shutdown(socket, SHUT_RDWR); }

}  // namespace larder::os

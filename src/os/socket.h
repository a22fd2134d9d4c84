// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <larder/result.h>
#include <larder/units.h>

#include "os/file.h"

namespace larder::os {

// Stream sockets; all that these functions make are non-blocking and close-on-exec. errno's errors throughout.

// A listening socket at a path. A socket file that nobody listens on is replaced; EADDRINUSE if somebody still does
// after a second, EEXIST if the path is something else than a socket.
result<descriptor> listen_unix(const std::string& path);
// Removes a socket file.
void remove_socket_file(const std::string& path);

struct tcp_listener {
  descriptor socket;
  std::string address;  // numeric, without brackets
  std::uint16_t port;   // the one taken, where 0 was asked for
};
// A listening socket at a numeric IPv4 or IPv6 address, or a name of this machine. EINVAL if the name means nothing.
result<tcp_listener> listen_tcp(const std::string& host, std::uint16_t port);

result<descriptor> connect_unix(const std::string& path);
// Two connected sockets.
result<std::pair<descriptor, descriptor>> socket_pair();

// EAGAIN when nobody waits.
result<descriptor> accept_one(int listener);
// Sends small messages at once (TCP_NODELAY); nothing on other sockets.
void send_without_delay(int socket);

// What can be moved at once without waiting: EAGAIN when nothing can. Receiving 0 bytes means that the peer is gone.
result<std::size_t> receive_now(int socket, std::span<const iovec> into);
result<std::size_t> send_now(int socket, std::span<const iovec> from);
// Begins to connect: EINPROGRESS where that takes time; then the socket becomes writable, and pending_error() says how
// it went. `address` is a sockaddr of the socket's family.
result<void> connect_now(int socket, std::span<const std::byte> address);
result<void> pending_error(int socket);
// Blocks the thread until poll(2) has one of `events` to report, or an error; returns what it reports: 0 if the
// deadline came first.
int wait_for_events(int socket, short events, time_point deadline = no_deadline);
// Ends both directions: whoever polls the socket is woken.
void shut_down(int socket);

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#include "server/serve.h"

#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "os/clock.h"
#include "os/signal.h"
#include "os/terminal.h"
#include "server/images.h"
#include "server/service.h"
#include "server/status.h"

namespace larder::server {
namespace {

constexpr std::chrono::seconds status_period{1};
constexpr std::chrono::seconds patience_at_stop{5};

void say(const std::string& line) {
  std::fputs(line.c_str(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

// A socket file that goes with this object.
class socket_file {
 public:
  explicit socket_file(std::string path) : path_(std::move(path)) {}
  socket_file(socket_file&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  socket_file& operator=(socket_file&&) = delete;
  ~socket_file() {
    if (!path_.empty()) os::remove_socket_file(path_);
  }

 private:
  std::string path_;
};

// A way in: a listening socket, and how a client names it.
struct door {
  os::descriptor socket;
  std::string uri_head;  // up to the export's name
  std::string uri_tail;  // behind it
};

std::string percent_encoded(std::string_view text) {
  std::string encoded;
  for (const char each : text) {
    const bool plain = (each >= 'a' && each <= 'z') || (each >= 'A' && each <= 'Z') || (each >= '0' && each <= '9') ||
                       std::string_view("-._~/").find(each) != std::string_view::npos;
    if (plain) {
      encoded += each;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(each));
    }
  }
  return encoded;
}

std::string absolute(const std::string& path) {
  return path.starts_with('/') ? path : os::working_directory() + "/" + path;
}

door open_socket(const std::string& path, std::vector<socket_file>& files) {
  auto socket = os::listen_unix(path);
  if (!socket) {
    const std::error_code error = socket.error();
    const char* advice = "choose another path with --socket";
    std::string problem = error.message();
    if (error == error_from(EADDRINUSE)) {
      problem = "another server listens there";
      advice = "stop it, or choose another path with --socket";
    } else if (error == error_from(EEXIST)) {
      problem = "is there already, and is no socket";
    } else if (error == error_from(ENAMETOOLONG)) {
      problem = "is too long for a socket's path (107 bytes at most)";
    }
    throw bad_start(fmt::format("--socket {}: {}; {}", path, problem, advice));
  }
  files.emplace_back(path);
  return {std::move(*socket), "nbd+unix:///", "?socket=" + percent_encoded(absolute(path))};
}

door open_port(const serve_options::tcp_address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  const std::string text = fmt::format("{}{}{}:{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port);
  auto listener = os::listen_tcp(address.host, address.port);
  if (!listener) {
    const std::error_code error = listener.error();
    if (error == error_from(EADDRINUSE)) {
      throw bad_start(
          fmt::format("--listen {}: the port is in use; stop who uses it, or choose another (0 takes a free "
                      "one)",
                      text));
    }
    if (error == error_from(EINVAL)) {
      throw bad_start(fmt::format("--listen {}: this machine knows no such address; give one of its own", text));
    }
    throw bad_start(
        fmt::format("--listen {}: {}; give an address of this machine and a port you may use", text, error.message()));
  }
  const bool numeric_v6 = listener->address.find(':') != std::string::npos;
  return {
      std::move(listener->socket),
      fmt::format("nbd://{}{}{}:{}/", numeric_v6 ? "[" : "", listener->address, numeric_v6 ? "]" : "", listener->port),
      ""};
}

std::unique_ptr<service> start(const serve_options& chosen, std::vector<disk> disks) {
  const auto listeners = static_cast<unsigned>(chosen.sockets.size() + chosen.addresses.size());
  const layout plan = layout::of(chosen.memory, chosen.workers, listeners);
  const auto [least, sum] = service::least_memory(chosen.workers, listeners);
  if (chosen.memory < least) {
    throw bad_start(fmt::format("--memory {}: too little; the least that works with {} {} is {} ({})",
                                format_bytes(chosen.memory), chosen.workers, chosen.workers == 1 ? "worker" : "workers",
                                format_bytes(least), sum));
  }
  return std::make_unique<service>(chosen.memory, plan, std::move(disks));
}

void announce(const serve_options& chosen, const service& running, const std::vector<door>& doors, bool demonstration) {
  if (demonstration) {
    say(
        fmt::format("larder: a demonstration disk of {}, gone when the server stops; serve your own with: larder serve "
                    "disk.img",
                    format_bytes(demonstration_size)));
  }
  say(fmt::format("memory: {} for everything that serving takes, with {} {}", format_bytes(chosen.memory),
                  chosen.workers, chosen.workers == 1 ? "worker" : "workers"));
  std::string first;
  for (const door& way : doors) {
    for (const nbd::export_view& each : running.exports()) {
      const std::string uri = way.uri_head + percent_encoded(each.name) + way.uri_tail;
      if (first.empty()) first = uri;
      say("ready: " + uri + (each.read_only ? " (read-only)" : ""));
    }
  }
  say("try, in another terminal:");
  say(fmt::format("  nbdinfo '{}'", first));
  say(fmt::format("  nbdcopy '{}' - | sha256sum", first));
  say(fmt::format("  qemu-img info '{}'", first));
  if (demonstration) {
    say(fmt::format("  qemu-io -f raw -c 'write -P 7 0 1M' -c 'read -P 7 0 1M' '{}'", first));
  }
  say("stop with Ctrl-C");
}

// Shows the status every second until a signal says to stop, and the tasks when one asks for them.
void watch(service& running) {
  const bool terminal = os::output_is_terminal();
  status line(running.now(), os::now());
  time_point next = os::now() + status_period;
  for (;;) {
    const int signal = os::await_signal(next);
    if (os::asks_to_stop(signal)) break;
    if (os::asks_for_report(signal)) {
      if (terminal) std::fputc('\n', stdout);
      say(running.tasks().report());
    }
    const time_point now = os::now();
    if (terminal) {
      // Back to the line's start, and clear what the last one left.
      std::fputs(("\r" + line.for_terminal(running.now(), now, os::terminal_columns()) + "\x1b[K").c_str(), stdout);
      std::fflush(stdout);
    } else {
      say(line.for_log(running.now(), now));
    }
    while (next <= now) next += status_period;
  }
  if (terminal) std::fputc('\n', stdout);
}

}  // namespace

int serve(const serve_options& chosen) {
  os::hold_signals();
  os::raise_descriptor_limit();
  const bool demonstration = chosen.images.empty();
  std::vector<disk> disks;
  if (demonstration) {
    disks.push_back(make_demonstration_disk());
  } else {
    disks = open_images(chosen.images);
  }
  std::vector<socket_file> socket_files;
  std::vector<door> doors;
  for (const std::string& path : chosen.sockets) doors.push_back(open_socket(path, socket_files));
  for (const auto& address : chosen.addresses) doors.push_back(open_port(address));

  const std::unique_ptr<service> running = start(chosen, std::move(disks));
  announce(chosen, *running, doors, demonstration);
  for (door& way : doors) running->listen(std::move(way.socket));
  watch(*running);

  const service::figures last = running->now();
  say(fmt::format("stopping: {} in flight, {} to write (Ctrl-C again gives up, and loses what is not written)",
                  last.in_flight, format_bytes(bytes{last.pages.pages_dirty} * page_size)));
  os::release_signals();
  const auto losses = running->stop(patience_at_stop);
  for (const service::loss& lost : losses) {
    std::fprintf(stderr, "larder: \"%s\": what was written could not all be brought to its disk: %s\n",
                 lost.disk.c_str(), lost.error.message().c_str());
  }
  say(fmt::format("stopped: {} requests answered, {} read, {} written", last.requests, format_bytes({last.bytes_read}),
                  format_bytes({last.bytes_written})));
  return losses.empty() ? 0 : 1;
}

}  // namespace larder::server

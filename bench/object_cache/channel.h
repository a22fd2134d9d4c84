// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "bench/object_cache/scenario.h"

namespace larder::bench {

// Lines of text between the benchmark and the process of a peer.
class channel {
 public:
  // Where a peer's process finds its end.
  static constexpr int peer_fd = 3;

  explicit channel(int fd = -1) : fd_(fd) {}
  ~channel() { close(); }
  channel(channel&& from) noexcept : fd_(std::exchange(from.fd_, -1)) {}
  channel& operator=(channel&& from) noexcept {
    std::swap(fd_, from.fd_);
    return *this;
  }

  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  bool send_line(std::string line) const {
    line += '\n';
    return ::send(fd_, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size());
  }
  // None when the other end is closed. Each side waits for the other's line, so nothing comes behind it.
  std::optional<std::string> receive_line() const {
    std::string line;
    char text[4096];
    while (line.empty() || line.back() != '\n') {
      const ssize_t length = ::recv(fd_, text, sizeof text, 0);
      if (length <= 0) return std::nullopt;
      line.append(text, static_cast<std::size_t>(length));
    }
    line.pop_back();
    return line;
  }

 private:
  int fd_;
};

inline std::string written(const request& asked) {
  std::ostringstream line;
  line << asked.scenario << ' ' << asked.argument << ' ' << asked.iterations;
  return line.str();
}
inline request read_request(const std::string& line) {
  request asked;
  std::istringstream(line) >> asked.scenario >> asked.argument >> asked.iterations;
  return asked;
}

// `time name value name value …`, or `! error`.
inline std::string written(const answer& told) {
  if (!told.error.empty()) return "! " + told.error;
  std::ostringstream line;
  line.precision(17);
  line << told.ns_per_operation;
  for (const auto& [name, value] : told.figures) line << ' ' << name << ' ' << value;
  return line.str();
}
inline answer read_answer(const std::string& line) {
  answer told;
  std::istringstream words(line);
  if (line.starts_with("! ")) {
    told.error = line.substr(2);
  } else if (!(words >> told.ns_per_operation)) {
    told.error = "answered \"" + line + '"';
  }
  std::pair<std::string, double> figure;
  while (told.error.empty() && words >> figure.first >> figure.second) told.figures.push_back(figure);
  return told;
}

}  // namespace larder::bench

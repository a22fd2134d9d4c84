// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <larder/units.h>

#include "server/replay/options.h"

namespace larder::server {

// What a command line asks `larder serve` to do.
struct serve_options {
  struct image {
    std::string name;
    std::string path;
    bool read_only = false;
  };
  struct tcp_address {
    std::string host;
    std::uint16_t port = 0;
  };

  std::vector<image> images;  // none: a demonstration disk
  bytes memory = 16_MiB;
  std::vector<std::string> sockets;
  std::vector<tcp_address> addresses;
  unsigned workers = 1;
};

// One for each of the program's commands.
using command = std::variant<serve_options, replay::replay_options>;

// Reads a command line. Empty when there is nothing left to do (help and version are printed). Throws bad_start with
// one line that says what is wrong and what would be right.
std::optional<command> read_command_line(int count, const char* const* words);

// The pieces, each throwing bad_start.
bytes parse_size(const char* option, const std::string& text);      // what `option` gives: 600K, 16M, a number
serve_options::image parse_export(const std::string& text);         // NAME=PATH[,ro]
serve_options::tcp_address parse_address(const std::string& text);  // HOST:PORT, [V6]:PORT or :PORT

}  // namespace larder::server

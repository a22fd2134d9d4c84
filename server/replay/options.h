// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <larder/page_cache.h>
#include <larder/units.h>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace larder::server::replay {

// What a command line asks `larder replay` to do.
struct replay_options {
  std::string trace;         // a path; "-": standard input
  std::vector<bytes> sizes;  // in ascending order; none: from a 64th of what the trace touches to all of it
  std::vector<eviction_policy> policies;
  bytes page{page_size};
  std::optional<bytes> disk_size;  // none: as large as the trace reaches
  std::optional<std::uint64_t> requests_most;
  std::string svg;  // a path; empty: no picture
  bool json = false;
};

// The words of a command line as they were given.
struct replay_words {
  std::string trace;
  std::string memory;
  std::string sizes = "auto";
  std::string policy = "all";
  std::string page = "4K";
  std::string disk_size;
  std::string requests_most;
  std::string svg;
  bool json = false;
};

// Describes them to the parser, which fills them in.
void add_options(CLI::App& replay, replay_words& words);
// Throws bad_start with one line that says what is wrong and what would be right.
replay_options understand(const replay_words& words);

}  // namespace larder::server::replay

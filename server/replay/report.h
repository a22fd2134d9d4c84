// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "server/replay/plot.h"
#include "server/replay/survey.h"
#include "server/replay/trial.h"

namespace larder::server::replay {

// Everything that a replay found out.
struct findings {
  struct row {
    cache_choice cache;
    outcome result;
    double seconds = 0;
  };
  std::string trace;
  bytes page;
  std::array<std::uint64_t, operation_count> requests{};
  std::array<bytes, operation_count> lengths{};
  std::uint64_t commands_skipped = 0;
  std::uint64_t look_ups = 0;
  std::uint64_t hits_most = 0;
  std::uint64_t footprint_pages = 0;
  bytes disk_size;
  std::vector<row> rows;  // by size, then by policy

  double ratio_most() const;  // 0 if there were no look-ups
};

// For people: what the trace is, a line for each cache, and a table of hit ratios if there are several of both.
std::string as_text(const findings& found);
// One object, amounts in bytes, with a line's end (docs/replay.md).
std::string as_json(const findings& found);
// What is drawn of it. At least one row.
picture as_picture(const findings& found);

}  // namespace larder::server::replay

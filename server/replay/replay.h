// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "server/replay/options.h"
#include "server/replay/report.h"
#include "server/replay/trace_reader.h"

namespace larder::server::replay {

// Told how far the work is (0 to 1; below 0: nobody knows) and what is being done, often.
using watcher = std::function<void(double share, std::string_view doing)>;

// Replays a trace against each cache that was chosen. Throws bad_start.
findings run(trace_reader& trace, const replay_options& chosen, const watcher& watch);

// The sizes to try if none were given: powers of two and one and a half times these, from about a 64th of what the
// pages would take to where all of them fit.
std::vector<bytes> sizes_for(std::uint64_t footprint_pages, const std::vector<eviction_policy>& policies, bytes page);

// The whole program: prints to standard output, shows progress on standard error, draws. Returns the exit code: 0, or 1
// if the results were printed and the picture could not be written. Throws bad_start.
int replay(const replay_options& chosen);

}  // namespace larder::server::replay

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <larder/page_cache.h>
#include <larder/units.h>

namespace larder::server::replay {

// Hit ratio against cache size, a line for each policy.
struct picture {
  struct line {
    eviction_policy policy;
    std::vector<std::pair<bytes, double>> points;  // sizes in ascending order, ratios from 0 to 1; one at least
  };
  std::string title;
  std::string subtitle;
  std::vector<line> lines;  // one at least
  double ratio_most = 1;    // what no cache exceeds
};

// As SVG: light or dark as its viewer is, and told apart without colours.
std::string drawn(const picture& shown);

}  // namespace larder::server::replay

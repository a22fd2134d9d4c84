// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/service.h"

namespace larder::server {

// Three digits and a unit: what fits a line that is read at a glance.
std::string brief(bytes amount);

// Two looks at the figures make rates of them.
class status {
 public:
  explicit status(const service::figures& first, time_point when) : before_(first), when_(when) {}

  // What happened since the last line, for a terminal of that width, without a line's end.
  std::string for_terminal(const service::figures& now, time_point when, unsigned columns);
  // The same as key=value words for a log; amounts in bytes.
  std::string for_log(const service::figures& now, time_point when);

 private:
  struct rates {
    double requests_per_second;
    double hit_ratio;  // of the pages asked for since the last line; 1 if none was
  };
  rates look(const service::figures& now, time_point when);

  service::figures before_;
  time_point when_;
};

}  // namespace larder::server

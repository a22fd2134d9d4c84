// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <larder/units.h>

namespace larder::server::replay {

// How far something long has come, for a terminal or a log: nothing during the first two seconds, then a bar that is
// renewed five times a second, or a line every ten seconds. Makes the texts; whoever asks writes them.
class progress {
 public:
  // `columns`: the terminal's width; 0: it is a log.
  progress(time_point start, unsigned columns);

  // What is to be written now, if anything. `share`: 0 to 1; below 0: nobody knows.
  std::optional<std::string> look(double share, std::string_view doing, time_point now);
  // What clears the bar away.
  std::string finish() const;

 private:
  std::string bar(double share, std::string_view doing, double seconds) const;

  const time_point start_;
  const unsigned columns_;
  time_point next_;
  bool shown_ = false;
};

}  // namespace larder::server::replay

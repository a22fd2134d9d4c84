// SPDX-License-Identifier: Apache-2.0
#include "server/replay/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

namespace larder::server::replay {
namespace {

constexpr std::chrono::seconds patience{2};
constexpr std::chrono::milliseconds bar_period{200};
constexpr std::chrono::seconds line_period{10};
constexpr unsigned bar_cells_most = 40;

std::string time_text(double seconds) {
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace

progress::progress(time_point start, unsigned columns) : start_(start), columns_(columns), next_(start + patience) {}

std::optional<std::string> progress::look(double share, std::string_view doing, time_point now) {
  if (now < next_) return std::nullopt;
  shown_ = true;
  next_ = now + (columns_ > 0 ? std::chrono::duration_cast<time_point::duration>(bar_period) : line_period);
  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (columns_ > 0) return "\r" + bar(share, doing, seconds) + "\x1b[K";
  const std::string how_far = share < 0 ? std::string() : fmt::format("{:.0f}%, ", 100 * share);
  return fmt::format("replay: {}{}, after {}\n", how_far, doing, time_text(seconds));
}

std::string progress::finish() const { return shown_ && columns_ > 0 ? "\r\x1b[K" : ""; }

std::string progress::bar(double share, std::string_view doing, double seconds) const {
  std::string line;
  if (share < 0) {
    line = fmt::format("{}, {}", doing, time_text(seconds));
  } else {
    share = std::clamp(share, 0.0, 1.0);
    const unsigned cells = std::min(bar_cells_most, columns_ / 3);
    const auto full = static_cast<unsigned>(share * cells);
    line = fmt::format("[{:=<{}}{:<{}}] {:3.0f}%  {}", "", full, "", cells - full, 100 * share, doing);
    if (share > 0.01) line += fmt::format(", {} left", time_text(seconds / share - seconds));
  }
  if (line.size() >= columns_) line.resize(columns_ - 1);
  return line;
}

}  // namespace larder::server::replay

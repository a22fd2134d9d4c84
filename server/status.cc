// SPDX-License-Identifier: Apache-2.0
#include "server/status.h"

#include <fmt/format.h>

namespace larder::server {

std::string brief(bytes amount) {
  double value = static_cast<double>(amount.count);
  constexpr std::string_view units = "BKMGT";
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  const int decimals = unit == 0 || value >= 100 ? 0 : 1;
  return fmt::format("{:.{}f}{}", value, decimals, units[unit]);
}

status::rates status::look(const service::figures& now, time_point when) {
  const double seconds = std::chrono::duration<double>(when - when_).count();
  const auto hits = static_cast<double>(now.pages.hits - before_.pages.hits);
  const auto misses = static_cast<double>(now.pages.misses - before_.pages.misses);
  const rates found{
      .requests_per_second = seconds > 0 ? static_cast<double>(now.requests - before_.requests) / seconds : 0,
      .hit_ratio = hits + misses > 0 ? hits / (hits + misses) : 1};
  before_ = now;
  when_ = when;
  return found;
}

std::string status::for_terminal(const service::figures& now, time_point when, unsigned columns) {
  const rates since = look(now, when);
  std::string line = fmt::format("{} {}  {:.0f} requests/s  {:.1f}% hits  {} of {}:", now.connections,
                                 now.connections == 1 ? "client" : "clients", since.requests_per_second,
                                 100 * since.hit_ratio, brief(now.memory_used), brief(now.memory_limit));
  for (const memory_use& kind : now.kinds) line += fmt::format(" {} {}", kind.kind, brief(kind.used));
  line += fmt::format("  {} to write", brief(bytes{now.pages.pages_dirty} * page_size));
  if (columns > 0 && line.size() >= columns) line.resize(columns - 1);
  return line;
}

std::string status::for_log(const service::figures& now, time_point when) {
  const rates since = look(now, when);
  std::string line = fmt::format(
      "status: connections={} requests={} requests_per_second={:.0f} hit_ratio={:.3f} memory_used={} memory_peak={} "
      "memory_limit={}",
      now.connections, now.requests, since.requests_per_second, since.hit_ratio, now.memory_used.count,
      now.memory_peak.count, now.memory_limit.count);
  for (const memory_use& kind : now.kinds) line += fmt::format(" {}={}", kind.kind, kind.used.count);
  line += fmt::format(
      " in_flight={} dirty={} bytes_read={} bytes_written={} hits={} misses={} evictions={} handles_used={}",
      now.in_flight, now.pages.pages_dirty * page_size, now.bytes_read, now.bytes_written, now.pages.hits,
      now.pages.misses, now.pages.evictions, now.handles_used);
  return line;
}

}  // namespace larder::server

// SPDX-License-Identifier: Apache-2.0
#include "server/replay/report.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "server/status.h"

namespace larder::server::replay {
namespace {

constexpr std::array<const char*, operation_count> operation_names = {"read", "write", "discard", "flush"};

std::uint64_t sum_of(const std::array<std::uint64_t, operation_count>& counts) {
  std::uint64_t sum = 0;
  for (const std::uint64_t each : counts) sum += each;
  return sum;
}

std::string header_of(const findings& found) {
  std::string text = fmt::format("{}: {} requests:", found.trace, sum_of(found.requests));
  for (std::size_t what = 0; what < operation_count; ++what) {
    if (found.requests[what] == 0) continue;
    text += fmt::format(" {} {}", found.requests[what], operation_names[what]);
    if (found.lengths[what].count > 0) text += fmt::format(" ({})", brief(found.lengths[what]));
    text += ',';
  }
  text.back() = '\n';
  if (found.commands_skipped > 0) {
    text += fmt::format("{} SCSI commands that are no I/O were passed over\n", found.commands_skipped);
  }
  text += fmt::format("they touch {} of a disk of {}, in {} pages of {}, which they look up {} times\n",
                      brief(found.page * found.footprint_pages), brief(found.disk_size), found.footprint_pages,
                      format_bytes(found.page), found.look_ups);
  text += fmt::format("a cache that held everything would hit {:.2f}% of these; no other can hit more\n",
                      100 * found.ratio_most());
  return text;
}

std::string line_of(const findings::row& row) {
  const page_cache_stats& pages = row.result.pages;
  return fmt::format("{:>10}  {:<8} {:>8.2f}% {:>11} {:>11} {:>11} {:>13} {:>12} {:>8} {:>7.2f} s\n",
                     format_bytes(row.cache.memory), name_of(row.cache.policy), 100 * row.result.hit_ratio(),
                     pages.evictions, row.result.disk_reads, pages.pages_read, pages.pages_written, pages.write_backs,
                     pages.pages_dirty, row.seconds);
}

std::vector<eviction_policy> policies_of(const findings& found) {
  std::vector<eviction_policy> policies;
  for (const findings::row& row : found.rows) {
    if (std::find(policies.begin(), policies.end(), row.cache.policy) == policies.end()) {
      policies.push_back(row.cache.policy);
    }
  }
  return policies;
}

// A line for each size, a column for each policy.
std::string table_of(const findings& found) {
  const auto policies = policies_of(found);
  if (policies.size() < 2 || found.rows.size() <= policies.size()) return {};
  std::string text = fmt::format("\n{:>10}", "hit ratio");
  for (const eviction_policy each : policies) text += fmt::format(" {:>9}", name_of(each));
  for (std::size_t i = 0; i < found.rows.size(); ++i) {
    if (i % policies.size() == 0) text += fmt::format("\n{:>10}", format_bytes(found.rows[i].cache.memory));
    text += fmt::format(" {:>8.2f}%", 100 * found.rows[i].result.hit_ratio());
  }
  return text + '\n';
}

}  // namespace

double findings::ratio_most() const {
  return look_ups == 0 ? 0 : static_cast<double>(hits_most) / static_cast<double>(look_ups);
}

std::string as_text(const findings& found) {
  std::string text = header_of(found);
  if (found.rows.empty()) return text;
  text += fmt::format("\n{:>10}  {:<8} {:>9} {:>11} {:>11} {:>11} {:>13} {:>12} {:>8} {:>9}\n", "memory", "policy",
                      "hit ratio", "evictions", "disk reads", "pages read", "pages written", "write-backs", "dirty",
                      "time");
  for (const findings::row& row : found.rows) text += line_of(row);
  return text + table_of(found);
}

std::string as_json(const findings& found) {
  nlohmann::ordered_json all;
  all["trace"] = found.trace;
  for (std::size_t what = 0; what < operation_count; ++what) {
    all["requests"][operation_names[what]] = found.requests[what];
    all["requested_bytes"][operation_names[what]] = found.lengths[what].count;
  }
  all["commands_skipped"] = found.commands_skipped;
  all["disk_bytes"] = found.disk_size.count;
  all["page_bytes"] = found.page.count;
  all["footprint_pages"] = found.footprint_pages;
  all["look_ups"] = found.look_ups;
  all["hit_ratio_most"] = found.ratio_most();
  all["caches"] = nlohmann::ordered_json::array();
  for (const findings::row& row : found.rows) {
    const page_cache_stats& pages = row.result.pages;
    all["caches"].push_back({{"memory_bytes", row.cache.memory.count},
                             {"policy", name_of(row.cache.policy)},
                             {"hit_ratio", row.result.hit_ratio()},
                             {"hits", pages.hits},
                             {"misses", pages.misses},
                             {"evictions", pages.evictions},
                             {"pages_owned", pages.pages_owned},
                             {"disk_reads", row.result.disk_reads},
                             {"disk_bytes_read", row.result.disk_read.count},
                             {"pages_read", pages.pages_read},
                             {"disk_bytes_written", row.result.disk_written.count},
                             {"pages_written", pages.pages_written},
                             {"write_backs", pages.write_backs},
                             {"pages_dirty", pages.pages_dirty},
                             {"seconds", row.seconds}});
  }
  return all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

picture as_picture(const findings& found) {
  picture shown;
  shown.title = found.trace.substr(found.trace.rfind('/') + 1);
  shown.subtitle = fmt::format("{} requests over {}, pages of {}", sum_of(found.requests),
                               brief(found.page * found.footprint_pages), format_bytes(found.page));
  shown.ratio_most = found.ratio_most();
  for (const eviction_policy policy : policies_of(found)) {
    picture::line line{policy, {}};
    for (const findings::row& row : found.rows) {
      if (row.cache.policy == policy) line.points.emplace_back(row.cache.memory, row.result.hit_ratio());
    }
    shown.lines.push_back(std::move(line));
  }
  return shown;
}

}  // namespace larder::server::replay

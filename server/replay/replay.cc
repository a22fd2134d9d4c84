// SPDX-License-Identifier: Apache-2.0
//
// One cache is driven while the trace is read, of which a buffer is in memory. Several are tried one after the other
// over a compact copy of the requests, some five bytes each, which is charged to a budget: side by side in one pass
// they would need the metadata of all of them at once, standard input cannot be read twice, and which sizes are worth
// trying is known only when the trace has ended.
#include "server/replay/replay.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "os/clock.h"
#include "os/memory.h"
#include "os/terminal.h"
#include "server/replay/progress.h"
#include "server/replay/request_store.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

constexpr std::uint64_t requests_between_looks = 4096;
// Of the machine's memory, for what is known of the trace.
constexpr std::uint64_t memory_share = 4;

double seconds_since(time_point start) { return std::chrono::duration<double>(os::now() - start).count(); }

// Reads all requests that are wanted, and hands each to `use`, which says whether there was room for it.
template <typename Use>
void read_all(trace_reader& trace, const replay_options& chosen, const watcher& watch, Use use) {
  request next;
  std::uint64_t count = 0;
  while ((!chosen.requests_most || count < *chosen.requests_most) && trace.next(next)) {
    if (chosen.disk_size && next.offset + next.length > chosen.disk_size->count) {
      trace.parser().refuse_line(fmt::format("the request ends at byte {}, past the disk of {} that --disk-size gives",
                                             next.offset + next.length, format_bytes(*chosen.disk_size)));
    }
    if (!use(next)) {
      trace.parser().refuse_line(
          fmt::format("what is known of the trace takes a quarter of this machine's memory; replay "
                      "its beginning with --limit-requests {}",
                      count));
    }
    if (++count % requests_between_looks == 0) {
      const double share = trace.size().count == 0
                               ? -1
                               : static_cast<double>(trace.position().count) / static_cast<double>(trace.size().count);
      watch(share, fmt::format("{} requests read", count));
    }
  }
}

void describe(const survey& surveyed, const trace_reader& trace, const replay_options& chosen, findings& found) {
  for (std::size_t what = 0; what < operation_count; ++what) {
    found.requests[what] = surveyed.requests_of(static_cast<operation>(what));
    found.lengths[what] = surveyed.length_of(static_cast<operation>(what));
  }
  found.trace = trace.parser().name();
  found.page = chosen.page;
  found.commands_skipped = trace.parser().commands_skipped();
  found.look_ups = surveyed.look_ups();
  found.hits_most = surveyed.hits_most();
  found.footprint_pages = surveyed.footprint_pages();
  found.disk_size = chosen.disk_size.value_or(surveyed.disk_end());
}

findings run_one(trace_reader& trace, const replay_options& chosen, memory_budget& budget, const watcher& watch) {
  survey surveyed(chosen.page, budget);
  const cache_choice cache{chosen.sizes.front(), chosen.policies.front(), chosen.page};
  trial tried(cache);
  const time_point start = os::now();
  read_all(trace, chosen, watch, [&](const request& next) {
    if (!surveyed.add(next)) return false;
    tried.apply(next);
    return true;
  });
  findings found;
  describe(surveyed, trace, chosen, found);
  found.rows.push_back({cache, tried.now(), seconds_since(start)});
  return found;
}

findings::row try_cache(const cache_choice& cache, const request_store& requests, std::size_t done, std::size_t all,
                        const watcher& watch) {
  trial tried(cache);
  const time_point start = os::now();
  const std::string doing =
      fmt::format("cache {} of {}: {} {}", done + 1, all, format_bytes(cache.memory), name_of(cache.policy));
  request_store::cursor cursor(requests);
  request next;
  for (std::uint64_t count = 1; cursor.next(next); ++count) {
    tried.apply(next);
    if (count % requests_between_looks != 0) continue;
    const double part = static_cast<double>(count) / static_cast<double>(requests.size());
    watch((static_cast<double>(done) + part) / static_cast<double>(all), doing);
  }
  return {cache, tried.now(), seconds_since(start)};
}

void try_caches(const replay_options& chosen, const std::vector<bytes>& sizes, const request_store& requests,
                const watcher& watch, findings& found) {
  for (const bytes size : sizes) {
    for (const eviction_policy policy : chosen.policies) {
      found.rows.push_back(try_cache({size, policy, chosen.page}, requests, found.rows.size(),
                                     sizes.size() * chosen.policies.size(), watch));
    }
  }
}

// Before the trace is read, which may take long.
void check_sizes(const replay_options& chosen) {
  for (const bytes size : chosen.sizes) {
    for (const eviction_policy policy : chosen.policies) trial({size, policy, chosen.page});
  }
}

std::string advice_for_picture(const std::string& path, std::error_code error) {
  const char* what = "choose another file with --svg";
  if (error == error_from(ENOSPC) || error == error_from(EDQUOT)) what = "make room, or choose another file with --svg";
  return fmt::format("--svg {}: {}; {}", path, error.message(), what);
}

}  // namespace

std::vector<bytes> sizes_for(std::uint64_t footprint_pages, const std::vector<eviction_policy>& policies, bytes page) {
  bytes most;
  bytes least;
  for (const eviction_policy policy : policies) {
    most = std::max(most, trial::memory_for(footprint_pages, policy, page));
    least = std::max(least, trial::least_memory(policy, page));
  }
  // A cache cannot be larger than the machine.
  const bytes limit = os::physical_memory();
  std::vector<bytes> sizes;
  for (bytes power = 4_KiB; power <= limit; power = power * 2) {
    for (const bytes size : {power, power + power / 2}) {
      if (size < least || size < most / 64 || size > limit) continue;
      sizes.push_back(size);
      if (size >= most) return sizes;
    }
  }
  return sizes;
}

findings run(trace_reader& trace, const replay_options& chosen, const watcher& watch) {
  check_sizes(chosen);
  memory_budget budget("trace", {.limit = os::physical_memory() / memory_share});
  if (chosen.sizes.size() == 1 && chosen.policies.size() == 1) return run_one(trace, chosen, budget, watch);

  findings found;
  request_store requests(budget);
  {
    survey surveyed(chosen.page, budget);
    read_all(trace, chosen, watch, [&](const request& next) { return surveyed.add(next) && requests.add(next); });
    describe(surveyed, trace, chosen, found);
  }
  if (found.look_ups == 0) return found;
  const auto sizes =
      chosen.sizes.empty() ? sizes_for(found.footprint_pages, chosen.policies, chosen.page) : chosen.sizes;
  try_caches(chosen, sizes, requests, watch, found);
  return found;
}

int replay(const replay_options& chosen) {
  if (!chosen.svg.empty()) {
    const auto writable = os::check_replaceable(chosen.svg);
    if (!writable) throw bad_start(advice_for_picture(chosen.svg, writable.error()));
  }
  trace_reader trace(chosen.trace);
  progress bar(os::now(), os::error_output_is_terminal() ? os::error_output_columns() : 0);
  const findings found = run(trace, chosen, [&bar](double share, std::string_view doing) {
    if (const auto text = bar.look(share, doing, os::coarse_now())) std::fputs(text->c_str(), stderr);
  });
  std::fputs(bar.finish().c_str(), stderr);
  std::fputs((chosen.json ? as_json(found) : as_text(found)).c_str(), stdout);
  std::fflush(stdout);
  if (chosen.svg.empty()) return 0;
  if (found.rows.empty()) throw bad_start("--svg: the trace reads and writes nothing, so there is nothing to draw");
  if (const auto written = os::replace_file(chosen.svg, drawn(as_picture(found))); !written) {
    std::fprintf(stderr, "larder: %s\n", advice_for_picture(chosen.svg, written.error()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace larder::server::replay

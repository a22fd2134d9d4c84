// SPDX-License-Identifier: Apache-2.0
#include "server/replay/options.h"

#include <algorithm>
#include <charconv>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <larder/memory_budget.h>

#include "server/options.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

constexpr const char* examples = R"(
A trace is CSV whose first line names its columns:
  op              read, write, discard, flush, or a SCSI opcode in hexadecimal (28, 2a, ...)
  offset or lbn   where: in bytes, or in 512-byte blocks
  size            how much, in bytes
in any order; other columns are passed over.

Examples:
  larder replay disk.csv                                  hit ratios for all policies over ten sizes or so
  larder replay disk.csv --svg hits.svg                   the same, drawn
  larder replay disk.csv --memory 64M --policy sieve      one cache
  zcat disk.csv.gz | larder replay - --sizes 16M,64M --json)";

constexpr std::size_t sizes_most = 64;

std::vector<bytes> parse_sizes(const std::string& text) {
  std::vector<bytes> sizes;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    sizes.push_back(parse_size("--sizes", text.substr(begin, end - begin)));
    begin = end + 1;
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  if (sizes.size() > sizes_most) {
    throw bad_start(fmt::format("--sizes: {} sizes; give at most {}", sizes.size(), sizes_most));
  }
  return sizes;
}

std::vector<eviction_policy> parse_policies(const std::string& text) {
  if (text == "all") return {eviction_policies.begin(), eviction_policies.end()};
  if (const auto policy = eviction_policy_from(text)) return {*policy};
  std::string names;
  for (const eviction_policy each : eviction_policies) names += fmt::format("{}, ", name_of(each));
  throw bad_start(fmt::format("--policy {}: no such policy; give one of {}all", text, names));
}

bytes parse_page(const std::string& text) {
  const bytes page = parse_size("--page-size", text);
  if (page < bytes{page_size} || page > largest_page_size || (page.count & (page.count - 1)) != 0) {
    throw bad_start(fmt::format("--page-size {}: no such page; give 4K, 8K, 16K, 32K or 64K", text));
  }
  return page;
}

std::uint64_t parse_count(const std::string& text) {
  std::uint64_t count = 0;
  const auto [stopped, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || stopped != text.data() + text.size() || count == 0) {
    throw bad_start(fmt::format("--limit-requests {}: a number of requests, 1 or more", text));
  }
  return count;
}

}  // namespace

void add_options(CLI::App& replay, replay_words& words) {
  replay.add_option("TRACE", words.trace, "The requests of a disk, as CSV; -: standard input")->type_name("");
  replay
      .add_option("-m,--memory", words.memory,
                  "Try one size: the limit of the page cache's budget, such as 600K or 64M")
      ->type_name("SIZE");
  replay
      .add_option("--sizes", words.sizes, "Try these sizes; auto: from a 64th of what the trace touches to all of it")
      ->type_name("SIZE,...")
      ->capture_default_str();
  replay
      .add_option("-p,--policy", words.policy,
                  "Which page leaves when room is needed: sieve, s3-fifo, clock, lru or all")
      ->type_name("POLICY")
      ->capture_default_str();
  replay.add_option("--page-size", words.page, "The cache's pages: 4K, 8K, 16K, 32K or 64K")
      ->type_name("SIZE")
      ->capture_default_str();
  replay.add_option("--disk-size", words.disk_size, "Refuse requests past this (default: the disk ends where they do)")
      ->type_name("SIZE");
  replay.add_option("-n,--limit-requests", words.requests_most, "Replay the first N requests only")->type_name("N");
  replay.add_option("--svg", words.svg, "Draw the hit ratio against the size into a file")->type_name("FILE");
  replay.add_flag("--json", words.json, "Print everything as one JSON object");
  replay.footer(examples);
}

replay_options understand(const replay_words& words) {
  replay_options chosen;
  if (words.trace.empty()) throw bad_start("replay: which trace? Name a CSV file, or - for standard input");
  chosen.trace = words.trace;
  if (!words.memory.empty()) {
    if (words.sizes != "auto") throw bad_start("--memory and --sizes: give one of them");
    chosen.sizes = {parse_size("--memory", words.memory)};
  } else if (words.sizes != "auto") {
    chosen.sizes = parse_sizes(words.sizes);
  }
  chosen.policies = parse_policies(words.policy);
  chosen.page = parse_page(words.page);
  if (!words.disk_size.empty()) chosen.disk_size = parse_size("--disk-size", words.disk_size);
  if (!words.requests_most.empty()) chosen.requests_most = parse_count(words.requests_most);
  chosen.svg = words.svg;
  chosen.json = words.json;
  return chosen;
}

}  // namespace larder::server::replay

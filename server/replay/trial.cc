// SPDX-License-Identifier: Apache-2.0
//
// A trial is a real page cache over a disk that keeps nothing. Reads and writes pin pages a window at a time, as the
// server's requests do, but nobody copies bytes into or out of them, so that a cache of many gigabytes can be tried in
// the memory of its metadata. The cache's own read-ahead is off: what it brings in before it is asked for would count
// as hits, and the policies could not be told apart by them. Each request has an admission of its own and is alone, so
// admissions never wait.
#include "server/replay/trial.h"

#include <algorithm>
#include <array>
#include <span>

#include <fmt/format.h>

#include "base/check.h"
#include "os/memory.h"
#include "server/nbd/window.h"
#include "server/service.h"

namespace larder::server::replay {
namespace {

// Of a small cache no more than an eighth is pinned at once, of others the server's window, or the pins would decide
// which pages stay.
constexpr std::uint32_t window_share = 8;

page_cache::options options_for(memory_budget& budget, const cache_choice& choice) {
  // The server's share of pages that it never gives back.
  const auto guaranteed =
      static_cast<std::uint32_t>(std::clamp<std::uint64_t>(choice.memory / 16 / choice.page, 1, 1U << 20));
  page_cache::options chosen;
  chosen.budget = &budget;
  chosen.guaranteed_pages = guaranteed;
  chosen.policy = choice.policy;
  chosen.page_size = choice.page;
  chosen.read_ahead = {};
  return chosen;
}

// An open file takes some of it too.
constexpr bytes room_for_file = 1_KiB;

// The least limit, a whole number of KiB, under which `pages` are guaranteed. The tables grow with the limit, so it is
// approached from below: each step's need is the next one's limit, until that is enough.
bytes least_limit_for(std::uint32_t pages, eviction_policy policy, bytes page) {
  bytes limit = page * (std::uint64_t{pages} + 2);
  for (;;) {
    memory_budget budget("least", {.limit = limit, .high_mark_percent = 100});
    page_cache::options chosen = options_for(budget, {limit, policy, page});
    chosen.guaranteed_pages = pages;
    const bytes needed{round_up((page_cache::least_memory(chosen) + room_for_file).count, 1024)};
    if (needed <= limit) return limit;
    limit = needed;
  }
}

void must(const result<void>& done, const char* what) {
  LARDER_CHECK(done, "replay: %s failed: %s", what, done.error().message().c_str());
}

}  // namespace

double outcome::hit_ratio() const {
  return look_ups() == 0 ? 0 : static_cast<double>(pages.hits) / static_cast<double>(look_ups());
}

bytes trial::least_memory(eviction_policy policy, bytes page) { return least_limit_for(4, policy, page); }

bytes trial::memory_for(std::uint64_t pages, eviction_policy policy, bytes page) {
  return least_limit_for(static_cast<std::uint32_t>(std::clamp<std::uint64_t>(pages, 4, 1U << 30)), policy, page);
}

trial::trial(const cache_choice& chosen)
    : page_(chosen.page), budget_("replay", {.limit = chosen.memory, .high_mark_percent = 100}) {
  if (const bytes least = least_memory(chosen.policy, page_); chosen.memory < least) {
    throw bad_start(fmt::format("{} of memory: too little; the least that a page cache works with is {}",
                                format_bytes(chosen.memory), format_bytes(least)));
  }
  if (chosen.memory > os::physical_memory()) {
    throw bad_start(fmt::format("{} of memory: this machine has {}, and a page cache cannot be larger",
                                format_bytes(chosen.memory), format_bytes(os::physical_memory())));
  }
  auto cache = page_cache::create("replay", options_for(budget_, chosen));
  if (!cache) {
    throw bad_start(fmt::format("{} of memory: {}", format_bytes(chosen.memory), cache.error().message()));
  }
  cache_ = std::move(*cache);
  auto file = cache_->open(disk_);
  if (!file) throw bad_start(fmt::format("{} of memory: {}", format_bytes(chosen.memory), file.error().message()));
  file_ = std::move(*file);
  const std::uint64_t pages = chosen.memory / page_;
  window_pages_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(pages / window_share, 1, nbd::window_pages));
}

trial::~trial() {
  if (file_ != nullptr) file_->abandon();
}

void trial::apply(const request& next) {
  switch (next.what) {
    case operation::read:
      return read(next.offset, next.length);
    case operation::write:
      return write(next.offset, next.length);
    case operation::discard:
      return must(file_->discard(next.offset, {next.length}), "a discard");
    case operation::flush:
      return must(file_->flush(), "a flush");
  }
}

pin_admission trial::admit() {
  auto admitted = cache_->admit(1, window_pages_);
  LARDER_CHECK(admitted, "replay: no pages can be pinned: %s", admitted.error().message().c_str());
  return *std::move(admitted);
}

void trial::read(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  pin_admission admission = admit();
  must(file_->read_ahead(offset, {length}, &admission), "a read");
}

void trial::write(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  pin_admission admission = admit();
  const std::uint64_t end = offset + length;
  const std::uint64_t last_page = (end - 1) / page_.count;
  std::array<page_ref, nbd::window_pages> pages;
  for (std::uint64_t first = offset / page_.count; first <= last_page;) {
    const auto count = static_cast<std::size_t>(
        std::min<std::uint64_t>({last_page - first + 1, admission.available(), nbd::window_pages}));
    must(file_->pin_range(first, std::span(pages.data(), count), access::overwrite, admission), "a pin");
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t start = (first + i) * page_.count;
      const std::uint64_t from = std::max(offset, start) - start;
      must(pages[i].written(from, std::min(end - start, page_.count)), "a write");
      pages[i].reset();
    }
    first += count;
  }
}

outcome trial::now() const {
  return {.pages = cache_->stats(),
          .disk_reads = disk_.reads(),
          .disk_read = disk_.length_read(),
          .disk_written = disk_.length_written()};
}

}  // namespace larder::server::replay

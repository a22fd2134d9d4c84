// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "page/cache_core.h"

namespace larder::page {

// Most pages that are written together. Twice as many as are read, for who writes from end to end waits for each batch
// in turn.
inline constexpr std::size_t write_pages_max = 64;
// Most writes that are made at once, where the backing does more than one. With twice as many a batch is not at home on
// the smallest stack when a sanitizer widens the frames.
inline constexpr std::size_t write_runs_max = 16;

// Keeps a file that is there, though it be closed meanwhile.
class cache_core::file_hold {
 public:
  file_hold(cache_core& core, file& of) : core_(core), owner_(of) {
    of.references.fetch_add(1, base::memory_order_relaxed);
  }
  ~file_hold() { core_.release_file(owner_); }
  file_hold(const file_hold&) = delete;
  file_hold& operator=(const file_hold&) = delete;

 private:
  cache_core& core_;
  file& owner_;
};

// Pages of a file that are written together, in runs of neighbours. Begun with `writing`, which others may wait for; so
// whoever has a batch waits for nobody before it is written. Keeps the file.
struct cache_core::write_batch {
  write_batch(cache_core& cache, file& of)
      : core(cache),
        owner(of),
        kept(cache, of),
        runs_most(std::clamp<std::size_t>(of.source.writes_at_once(), 1, write_runs_max)) {}

  bool is_full() const { return count == pages.size() || runs_count == runs_most; }

  // Adds a page on which begin_write was called, as a new run, with those of its neighbours that are dirty, as far as
  // there is room.
  void add(frame& begun);

  // Adds those of the pages that can be written now, from the first, until the batch is full: returns those behind
  // that. The others are `missed`.
  template <typename Missed>
  std::span<const std::uint64_t> gather(std::span<const std::uint64_t> numbers, bool pinned_too, Missed missed) {
    while (!numbers.empty() && !is_full()) {
      if (frame* begun = core.begin_write_at(owner, numbers.front(), pinned_too); begun != nullptr) {
        add(*begun);
      } else {
        missed(numbers.front());
      }
      numbers = numbers.subspan(1);
    }
    return numbers;
  }

  // Once. Each page's write ends as its run's did. Returns an error if there was one; `first_outcome` is that of the
  // run that was added first.
  result<void> write();

  cache_core& core;
  file& owner;
  const file_hold kept;
  const std::size_t runs_most;
  std::array<frame*, write_pages_max> pages{};
  std::array<iovec, write_pages_max> vectors{};
  std::size_t count = 0;
  std::array<backing_write, write_runs_max> runs{};
  std::size_t runs_count = 0;
  std::uint64_t end = 0;  // of the run that was added last
  result<void> first_outcome;
};

}  // namespace larder::page

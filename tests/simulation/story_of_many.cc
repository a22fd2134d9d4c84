// SPDX-License-Identifier: Apache-2.0
//
// What the ancestor left to luck (KF-51).
#include <algorithm>
#include <array>
#include <utility>

#include "tests/simulation/stage.h"

namespace larder::simulation {
namespace {

using std::chrono::microseconds;

constexpr std::uint64_t units_in_page = page_size / unit_size;

world_settings world_of(std::uint64_t seed) {
  random_source random(random_source::mixed(seed) + 2);
  const std::array<std::uint64_t, 3> distances{0, 2000, 100};
  return {.seed = seed,
          .steps_between_switches = distances[random.below(distances.size())],
          .time_presses = random.one_in(2),
          .stray_tokens = random.one_in(4)};
}

// Pins a page, works, and needs another while it has it; or, with an admission of one, gives the first back for it.
void work_with_two_pages(stage& where, staged_file& at) {
  const std::uint64_t pages = at.model.size() / page_size;
  const std::uint64_t first = where.random().below(pages - 1);
  const std::uint64_t second = where.random().between(first + 1, pages - 1);
  const std::uint32_t wanted = where.random().one_in(4) ? 1 : 2;
  pin_admission admission = where.admit(*at.cache, wanted, wanted, no_deadline);
  const doing noted("work with a page and ask for another");
  const auto pin = [&](std::uint64_t page) {
    auto pinned = at.file->pin(page, where.random().one_in(2) ? access::modify : access::read, admission);
    where.whole().require(bool{pinned}, "a pin failed though the disk did not");
    if (!pinned) return page_ref();
    where.check_page(at, page, *pinned);
    return *std::move(pinned);
  };
  page_ref one = pin(first);
  if (where.random().one_in(2)) where.change_page(at, first, one);
  where.hold();
  where.check_page(at, first, one);
  if (wanted == 1) one.reset();
  page_ref other = pin(second);
  if (where.random().one_in(2)) where.change_page(at, second, other);
  where.hold();
  where.check_page(at, second, other);
}

}  // namespace

outcome run_many_with_a_page_each(std::uint64_t seed, unsigned actors, bytes limit) {
  story_settings chosen;
  chosen.world = world_of(seed);
  chosen.limit = limit;
  chosen.guaranteed_pages = 16;
  chosen.read_ahead_pages = 4;
  chosen.disk = {.size = 1024 * page_size, .latency_us = 40, .slow_in_1000 = 5};
  return stage::perform(chosen, [actors](stage& where) {
    where.build();
    std::vector<std::pair<std::string, std::function<void()>>> parts;
    for (unsigned i = 0; i < actors; ++i) {
      parts.emplace_back("worker " + std::to_string(i), [&] { work_with_two_pages(where, *where.files()[0]); });
    }
    where.play(std::move(parts));
    where.audit();
    where.take_down();
  });
}

outcome run_file_that_owns_all_pages(std::uint64_t seed) {
  story_settings chosen;
  chosen.world = world_of(seed);
  chosen.guaranteed_pages = 8;
  chosen.cache_pages_max = 8;
  chosen.extra_pages = 0;
  chosen.files = 2;
  chosen.disk = {.size = 64 * page_size, .latency_us = 40, .slow_in_1000 = 5, .writes_fail = 0};
  return stage::perform(chosen, [](stage& where) {
    where.build();
    staged_file& owner_of_all = *where.files()[0];
    staged_file& other = *where.files()[1];
    bool locked = false;  // the first file, by who works on it
    const auto work_on_it = [&] {
      while (std::exchange(locked, true)) where.whole().sleep(microseconds(10));
      // All of the cache's pages become this file's, and dirty; and then it needs more, and holds the lock.
      where.write(owner_of_all, 0, 8 * units_in_page);
      where.hold();
      where.write(owner_of_all, where.random().between(8, 40) * units_in_page, 9 * units_in_page);
      locked = false;
    };
    const auto read_the_other = [&] {
      for (int i = 0; i < 5; ++i) {
        where.read(other, 0, std::min(other.model.units(), 12 * units_in_page));
        where.pause();
      }
    };
    std::vector<std::pair<std::string, std::function<void()>>> parts;
    for (int i = 0; i < 6; ++i) parts.emplace_back("owner " + std::to_string(i), work_on_it);
    for (int i = 0; i < 4; ++i) parts.emplace_back("reader " + std::to_string(i), read_the_other);
    where.play(std::move(parts));
    where.audit();
    where.take_down();
  });
}

}  // namespace larder::simulation

// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/stage.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "budget/round.h"
#include "budget/tree.h"
#include "os/clock.h"
#include "tests/sched/keeper.h"
#include "tests/sched/page_daemon.h"
#include "tests/simulation/memory.h"

namespace larder::simulation {
namespace {

using std::chrono::microseconds;

page_cache::options options_of(const story_settings& chosen, memory_budget& budget) {
  page_cache::options made{.budget = &budget,
                           .guaranteed_pages = chosen.guaranteed_pages,
                           .policy = chosen.policy,
                           .page_size = bytes{chosen.page_length},
                           .read_ahead = bytes{chosen.page_length * chosen.read_ahead_pages}};
  if (chosen.cache_pages_max > 0) made.limit = bytes{chosen.page_length} * chosen.cache_pages_max;
  return made;
}

// The least that the caches take depends on the limit, by their tables; so it is asked for twice.
bytes limit_of(const story_settings& chosen) {
  if (chosen.limit.count > 0) return chosen.limit;
  bytes limit{};
  for (int round = 0; round < 2; ++round) {
    memory_budget trial("trial", {.limit = limit.count == 0 ? 16_MiB : limit});
    limit = page_cache::least_memory(options_of(chosen, trial)) * chosen.caches +
            bytes{chosen.page_length} * chosen.extra_pages + 2_KiB * chosen.caches * chosen.files;
  }
  return limit;
}

}  // namespace

stage::stage(const story_settings& chosen) : settings(chosen), world_(std::make_unique<world>(chosen.world)) {
  renew_memory();
  sched::renew_keeper();
  sched::set_page_daemon(true);
}

// The page daemon as an actor.
void stage::run_page_daemon() {
  actor& self = *world::actor_of_now();
  sched::set_page_daemon_sleeper(&self);
  time_point due = no_deadline;
  while (!daemon_may_end_) {
    due = std::min(due, sched::take_page_daemon_call());
    if (due <= os::now()) {
      due = budget::reclaim_round(*budget::state_of(*budget_).tree, os::now());
    } else {
      self.park_until(due);
    }
  }
  sched::set_page_daemon_sleeper(nullptr);
  daemon_may_end_ = false;
}

void stage::build() {
  const bytes reserve = settings.user_reserve ? bytes{settings.page_length} * 2 : bytes{};
  highest_limit_ = limit_of(settings) + reserve;
  budget_ = std::make_unique<memory_budget>(
      "story", memory_budget::options{
                   .limit = highest_limit_, .reserve = reserve, .high_mark_percent = settings.high_mark_percent});
  // While the limit changes, figures take a lock, so they are looked at by actors (story.cc).
  world_->add_law([this] {
    if (budget_ == nullptr || settings.limit_changes || budget_->used() <= budget_->limit()) return;
    world_->fail("more is used than the limit allows");
  });
  for (unsigned c = 0; c < settings.caches; ++c) {
    auto made = page_cache::create("cache" + std::to_string(c), options_of(settings, *budget_));
    world_->require(bool{made}, "a cache was refused the least memory that it said it needs");
    caches_.push_back(*std::move(made));
    for (unsigned f = 0; f < settings.files; ++f) {
      disk_settings disk = settings.disk;
      if (f > 0) disk.size = unit_size * random().between(1, disk.size / unit_size);
      files_.push_back(std::make_unique<staged_file>(*world_, disk, files_.size() + 1));
      staged_file& at = *files_.back();
      const std::uint64_t first_contents = random().one_in(4) ? 0 : next_stamp();
      at.model.begin_with(first_contents);
      at.model.fill(0, at.disk.contents(), first_contents);
      at.disk.settle();
      at.cache = caches_.back().get();
      auto opened = at.cache->open(at.disk);
      world_->require(bool{opened}, "a file could not be opened");
      at.file = *std::move(opened);
    }
  }
}

void stage::play(std::vector<std::pair<std::string, std::function<void()>>> parts) {
  actor& director = *world::actor_of_now();
  actor& daemon = world_->start("page daemon", [this] { run_page_daemon(); });
  auto left = std::make_shared<std::size_t>(parts.size());
  for (auto& [name, body] : parts) {
    actor& made = world_->start(name, [&director, left, body = std::move(body)] {
      body();
      if (--*left == 0) director.unpark();
    });
    made.slow = random().one_in(8);
  }
  const doing noted("waits for all actors");
  while (*left > 0) director.park();
  daemon_may_end_ = true;
  daemon.unpark();
  while (daemon_may_end_) world_->sleep(microseconds(50));
}

void stage::audit() {
  budget_->audit();
  world_->require(budget_->account().total() == budget_->used(), "the account by kind is not what is used");
  for (const auto& each : caches_) each->audit();
  world_->require(!budget_->has_waiters(), "somebody is left in the queue for memory");
}

void stage::flush_and_compare() {
  for (const auto& each : files_) {
    staged_file& at = *each;
    const disk_settings before = at.disk.settings;
    at.disk.settings.reads_fail = at.disk.settings.writes_fail = 0;
    at.disk.settings.discards_fail = at.disk.settings.flushes_fail = 0;
    flush(at);
    const std::uint64_t when = world_->moment();
    const std::string wrong = at.model.check_read(0, at.disk.contents(), when, when);
    if (!wrong.empty()) world_->fail("after a flush, on the disk: %s", wrong.c_str());
    world_->require(std::ranges::equal(at.disk.contents(), at.disk.left_by_power_cut(true)),
                    "after a flush, not all is durable");
    read(at, 0, at.model.units());
    at.disk.settings = before;
  }
}

void stage::take_down() {
  flush_and_compare();
  audit();
  for (const auto& each : caches_) {
    const page_cache_stats figures = each->stats();
    result_.evictions += figures.evictions;
    result_.write_back_errors += figures.write_back_errors;
    result_.admission_waits += figures.admission_waits;
    result_.frame_waits += figures.frame_waits;
    result_.reclaimed += figures.pages_reclaimed;
    world_->require(figures.pins_admitted == 0, "pins are admitted to nobody");
    world_->require(figures.pages_dirty == 0, "pages are dirty after all were flushed");
  }
  result_.memory_waits = budget_->waits();
  result_.daemon_rounds = budget::state_of(*budget_).daemon_rounds.value();
  for (const auto& each : files_) each->file.reset();
  caches_.clear();
  world_->require(budget_->used() == bytes{}, "memory is charged to nobody");
  budget_.reset();
}

void stage::read(staged_file& at, std::uint64_t first, std::uint64_t count, pin_admission* admission) {
  const doing noted("read");
  std::vector<std::byte> found(count * unit_size);
  const std::uint64_t failures = at.disk.failures();
  const std::uint64_t began = world_->moment();
  at.model.begin_read(began);
  const auto done = at.file->read(first * unit_size, found, admission);
  const std::uint64_t ended = world_->moment();
  at.model.end_read(began);
  world_->trace("read: page, units, ok", first / units_in_page(), count, done ? 1 : 0);
  if (!done) return expect_reason(done.error(), at, failures, "read");
  const std::string wrong = at.model.check_read(first, found, began, ended);
  if (!wrong.empty())
    world_->fail("a read from %llu to %llu: %s", static_cast<unsigned long long>(began),
                 static_cast<unsigned long long>(ended), wrong.c_str());
}

void stage::try_read(staged_file& at, std::uint64_t first, std::uint64_t count) {
  const doing noted("try to read");
  count = std::min(count, units_in_page() - first % units_in_page());
  std::vector<std::byte> found(count * unit_size);
  const std::uint64_t began = world_->moment();
  at.model.begin_read(began);
  const bool done = at.file->try_read(first * unit_size, found);
  const std::uint64_t ended = world_->moment();
  at.model.end_read(began);
  if (!done) return;
  const std::string wrong = at.model.check_read(first, found, began, ended);
  if (!wrong.empty())
    world_->fail("a try_read from %llu to %llu: %s", static_cast<unsigned long long>(began),
                 static_cast<unsigned long long>(ended), wrong.c_str());
}

void stage::write(staged_file& at, std::uint64_t first, std::uint64_t count, pin_admission* admission) {
  const doing noted("write");
  const std::uint64_t value = next_stamp();
  std::vector<std::byte> data(count * unit_size);
  at.model.fill(first, data, value);
  const std::uint64_t failures = at.disk.failures();
  const std::uint64_t began = world_->moment();
  at.model.begin_write(first, first + count, value, began);
  world_->trace("write begins: page, units, stamp", first / units_in_page(), count, value);
  const auto done = at.file->write(first * unit_size, data, admission);
  at.model.end_write(first, first + count, began, world_->moment(), bool{done});
  world_->trace("write ends: page, stamp, ok", first / units_in_page(), value, done ? 1 : 0);
  if (!done) expect_reason(done.error(), at, failures, "write");
}

void stage::zero(staged_file& at, std::uint64_t first, std::uint64_t count, bool keep_blocks) {
  const doing noted("discard");
  const std::uint64_t failures = at.disk.failures();
  const std::uint64_t began = world_->moment();
  at.model.begin_write(first, first + count, 0, began);
  world_->trace("discard begins: page, units", first / units_in_page(), count);
  const auto done = keep_blocks ? at.file->zero(first * unit_size, bytes{count * unit_size}, true)
                                : at.file->discard(first * unit_size, bytes{count * unit_size});
  at.model.end_write(first, first + count, began, world_->moment(), bool{done});
  world_->trace("discard ends: page, units, ok", first / units_in_page(), count, done ? 1 : 0);
  if (!done) expect_reason(done.error(), at, failures, "discard");
}

void stage::load(staged_file& at, std::uint64_t first, std::uint64_t count) {
  const doing noted("load");
  const std::uint64_t failures = at.disk.failures();
  const auto done = at.file->read_ahead(first * unit_size, bytes{count * unit_size});
  if (!done) expect_reason(done.error(), at, failures, "load");
  (void)at.file->resident(first * unit_size, bytes{count * unit_size});
}

void stage::flush(staged_file& at) { flush_range(at, 0, at.model.units()); }

void stage::flush_range(staged_file& at, std::uint64_t first, std::uint64_t count) {
  const doing noted("flush");
  const std::uint64_t failures = at.disk.failures();
  const std::uint64_t began = world_->moment();
  world_->trace("flush begins: page, units", first / units_in_page(), count);
  const auto done =
      count == at.model.units() ? at.file->flush() : at.file->flush_range(first * unit_size, bytes{count * unit_size});
  world_->trace("flush ends: page, units, ok", first / units_in_page(), count, done ? 1 : 0);
  if (!done) return expect_reason(done.error(), at, failures, "flush");
  at.model.note_flush(first, first + count, began);
  const std::string wrong = at.model.check_left(at.disk.left_by_power_cut(true));
  if (!wrong.empty())
    world_->fail("after a flush that began at %llu: %s", static_cast<unsigned long long>(began), wrong.c_str());
}

void stage::check_page(staged_file& at, std::uint64_t page, page_ref& pinned) {
  if (pinned.fresh()) return;
  const std::uint64_t when = world_->moment();
  const std::string wrong = at.model.check_read(page * units_in_page(), pinned.data(), when, when);
  if (!wrong.empty()) world_->fail("a pinned page at %llu: %s", static_cast<unsigned long long>(when), wrong.c_str());
}

bool stage::change_page(staged_file& at, std::uint64_t page, page_ref& pinned) {
  const std::uint64_t units = pinned.data().size() / unit_size;
  std::uint64_t first = random().below(units);
  std::uint64_t last = random().between(first + 1, units);
  if (random().one_in(3)) {
    first = 0;
    last = units;
  }
  const std::uint64_t value = next_stamp();
  const std::uint64_t first_unit = page * units_in_page() + first;
  const std::uint64_t failures = at.disk.failures();
  const std::uint64_t began = world_->moment();
  at.model.begin_write(first_unit, first_unit + last - first, value, began);
  world_->trace("change of a pinned page begins: page, units, stamp", page, last - first, value);
  at.model.fill(first_unit, pinned.data().subspan(first * unit_size, (last - first) * unit_size), value);
  const auto done = pinned.written(first * unit_size, last * unit_size);
  at.model.end_write(first_unit, first_unit + last - first, began, world_->moment(), bool{done});
  world_->trace("change of a pinned page ends: page, stamp, ok", page, value, done ? 1 : 0);
  if (!done) expect_reason(done.error(), at, failures, "change of a pinned page");
  return bool{done};
}

pin_admission stage::admit(page_cache& cache, std::uint32_t least, std::uint32_t most, time_point deadline) {
  const doing noted("wait for admission");
  auto admitted = cache.admit(least, most, deadline);
  world_->trace("admission: least, most, ok", least, most, admitted ? 1 : 0);
  if (admitted) {
    world_->require(least <= admitted->pages() && admitted->pages() <= most, "an admission of another size");
    return *std::move(admitted);
  }
  if (admitted.error() == error_from(ETIMEDOUT)) {
    world_->require(deadline != no_deadline && world_->now() >= deadline, "an admission failed before its deadline");
  } else {
    world_->require(admitted.error() == error_from(ENOMEM) && least > settings.guaranteed_pages,
                    "an admission was refused that there is memory for");
  }
  return {};
}

void stage::cut_power(bool worst) {
  for (const auto& each : files_) {
    const std::string wrong = each->model.check_left(each->disk.left_by_power_cut(worst));
    if (!wrong.empty()) world_->fail("at a power cut: %s", wrong.c_str());
  }
}

void stage::expect_reason(const std::error_code& error, const staged_file& at, std::uint64_t failures_before,
                          const char* what) {
  const bool of_disk = error == error_from(EIO) || error == error_from(ENOSPC);
  if (!of_disk) world_->fail("a %s failed: %s", what, error.message().c_str());
  // A page of another file may be what had to be written first.
  std::uint64_t failures = at.disk.failures() - failures_before;
  if (settings.files > 1) failures += 1;
  if (failures == 0) world_->fail("a %s failed, but the disk did not", what);
}

void stage::pause() {
  if (random().one_in(3)) {
    world_->sleep(microseconds(random().between(1, 400)));
  } else if (random().one_in(3)) {
    world_->yield();
  }
}

void stage::hold() {
  if (random().one_in(4)) return;
  world_->sleep(microseconds(random().one_in(16) ? random().between(1000, 20000) : random().between(1, 300)));
}

outcome stage::result_of() {
  result_.failure = world_->failure();
  result_.fingerprint = world_->fingerprint();
  result_.steps = world_->steps();
  result_.switches = world_->switches();
  if (world_->failed()) result_.report = world_->last_events();
  return result_;
}

outcome stage::perform(const story_settings& chosen, const std::function<void(stage&)>& director) {
  // What a failed story leaves behind is referred to by its actors' stacks, and is still there for them.
  static auto& left_behind = *new std::vector<std::unique_ptr<stage>>;
  auto made = std::make_unique<stage>(chosen);
  made->world_->start("director", [&] { director(*made); });
  made->world_->run();
  outcome result = made->result_of();
  if (made->world_->failed()) left_behind.push_back(std::move(made));
  return result;
}

}  // namespace larder::simulation

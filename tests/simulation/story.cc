// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/story.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <utility>

#include <larder/object_cache.h>

#include "budget/ticket.h"
#include "cache/keeper.h"
#include "os/clock.h"
#include "tests/simulation/stage.h"

namespace larder::simulation {
namespace {

using std::chrono::microseconds;

struct thing {
  const actor* owner = nullptr;
  std::array<std::byte, 500> filling{};
};

// The actors' parts; one object for each story.
class cast {
 public:
  explicit cast(stage& where) : stage_(where) {}
  void play_all();

 private:
  void use_files();
  void pin_several();
  void charge_memory();
  void wait_in_order(bytes amount);
  void use_objects(object_cache<thing>& things);
  void hoard();
  void trouble();
  void fail_writes();
  void change_limit();
  void look();
  void look_at_limit();
  void keep();
  staged_file& any_file() { return *stage_.files()[random().below(stage_.files().size())]; }
  std::pair<std::uint64_t, std::uint64_t> any_units(staged_file& at);
  random_source& random() { return stage_.random(); }
  world& whole() { return stage_.whole(); }
  time_point soon() { return whole().now() + microseconds(random().between(1, 3000)); }
  // False once the others have ended.
  bool others_act() const { return acting_ > 0; }

  stage& stage_;
  unsigned acting_ = 0;
  // Tickets of one amount, in the order in which they entered the queue.
  std::list<std::pair<bytes, const budget_ticket*>> tickets_;
};

std::pair<std::uint64_t, std::uint64_t> cast::any_units(staged_file& at) {
  const std::uint64_t all = at.model.units();
  std::uint64_t count = 1 + random().below(random().one_in(4) ? 12 * stage_.units_in_page() : stage_.units_in_page());
  std::uint64_t first = random().below(all);
  if (random().one_in(3)) {  // whole pages
    first -= first % stage_.units_in_page();
    count = (count + stage_.units_in_page() - 1) / stage_.units_in_page() * stage_.units_in_page();
  }
  return {first, std::min(count, all - first)};
}

void cast::use_files() {
  for (unsigned i = 0; i < stage_.settings.operations; ++i) {
    staged_file& at = any_file();
    const auto [first, count] = any_units(at);
    const std::uint64_t which = random().below(100);
    if (which < 28) {
      stage_.write(at, first, count);
    } else if (which < 45) {
      stage_.read(at, first, count);
    } else if (which < 50) {
      stage_.try_read(at, first, count);
    } else if (which < 75) {
      pin_several();
    } else if (which < 83) {
      stage_.zero(at, first, count, random().one_in(3));
    } else if (which < 91) {
      stage_.flush(at);
    } else if (which < 96) {
      stage_.flush_range(at, first, count);
    } else {
      stage_.load(at, first, count);
    }
    if (stage_.settings.limit_changes) look_at_limit();
    stage_.pause();
  }
}

// Pins pages in ascending order, under one admission, and does things with them.
void cast::pin_several() {
  staged_file& at = any_file();
  const auto most = static_cast<std::uint32_t>(random().between(1, 6));
  const bool more_than_sure = random().one_in(8);
  auto least = static_cast<std::uint32_t>(random().between(1, most));
  if (!more_than_sure) least = std::min(least, stage_.settings.guaranteed_pages);
  pin_admission admission = stage_.admit(*at.cache, least, std::max(least, most),
                                         more_than_sure || random().one_in(4) ? soon() : no_deadline);
  if (admission.pages() == 0) return;
  const doing noted("pin pages");
  struct held {
    std::uint64_t page;
    page_ref pinned;
  };
  std::vector<held> pins;
  const std::uint64_t length = stage_.settings.page_length;
  const std::uint64_t pages = (at.model.size() + length - 1) / length;
  std::uint64_t next = random().below(pages);
  while (admission.available() > 0 && next < pages) {
    const std::uint64_t failures = at.disk.failures();
    const std::uint64_t how = random().below(8);
    if (how == 0) {
      if (page_ref found = at.file->try_pin(next, admission)) pins.push_back({next, std::move(found)});
    } else if (how == 1 && admission.available() > 1 && next + 1 < pages) {
      std::array<page_ref, 2> both;
      const auto done = at.file->pin_range(next, both, access::read, admission);
      if (!done) {
        stage_.expect_reason(done.error(), at, failures, "pin of a range");
        break;
      }
      pins.push_back({next, std::move(both[0])});
      pins.push_back({++next, std::move(both[1])});
    } else {
      const std::array intents{access::read, access::modify, access::overwrite};
      const access intent = intents[random().below(3)];
      auto pinned = at.file->pin(next, intent, admission);
      whole().trace("pin: page, intent, ok", next, static_cast<std::uint64_t>(intent), pinned ? 1 : 0);
      if (!pinned) {
        stage_.expect_reason(pinned.error(), at, failures, "pin");
        break;
      }
      pins.push_back({next, *std::move(pinned)});
      if (intent != access::read && !stage_.change_page(at, next, pins.back().pinned)) break;
    }
    if (!pins.empty()) stage_.check_page(at, pins.back().page, pins.back().pinned);
    if (random().one_in(3)) stage_.hold();
    next += 1 + random().below(3);
  }
  // Nothing fresh is held any more but what could not be written.
  if (!pins.empty() && pins.back().pinned.fresh()) pins.pop_back();
  for (held& each : pins) stage_.check_page(at, each.page, each.pinned);
  if (random().one_in(6)) stage_.flush(at);
  if (admission.available() > 0 && random().one_in(4))
    stage_.read(at, 0, std::min(at.model.units(), stage_.units_in_page()), &admission);
  stage_.hold();
  while (!pins.empty()) {
    const std::size_t which = random().below(pins.size());
    held& dropped = pins[which];
    stage_.check_page(at, dropped.page, dropped.pinned);
    if (random().one_in(5)) stage_.change_page(at, dropped.page, dropped.pinned);
    pins.erase(pins.begin() + static_cast<std::ptrdiff_t>(which));
    if (random().one_in(4)) admission.reduce(static_cast<std::uint32_t>(pins.size()));
  }
}

void cast::charge_memory() {
  memory_budget& budget = stage_.budget();
  for (unsigned i = 0; i < stage_.settings.operations; ++i) {
    // A third of what is not the caches' for sure: so that it can be had.
    const bytes amount{1 + random().below(std::max<std::uint64_t>(stage_.extra_bytes() / 3, 2))};
    const std::uint64_t how = random().below(8);
    bool charged = false;
    if (how == 0) {
      const doing noted("charge too much");
      const auto done = budget.charge(stage_.highest_limit() + 1_B);
      whole().require(!done && done.error() == error_from(ENOMEM), "a charge above the limit did not fail at once");
    } else if (how == 1) {
      const doing noted("reclaim");
      whole().trace("reclaimed", budget.reclaim(amount).count);
    } else if (how == 2) {
      const doing noted("charge without waiting");
      const time_point before = whole().now();
      charged = budget.try_charge(amount);
      whole().require(whole().now() == before || stage_.settings.world.time_presses, "a try_charge took time");
    } else if (how < 5) {
      const doing noted("charge until a deadline");
      const time_point deadline = soon();
      const auto done = budget.charge(amount, deadline);
      whole().require(done || (done.error() == error_from(ETIMEDOUT) && whole().now() >= deadline),
                      "a charge failed before its deadline");
      charged = bool{done};
    } else if (how < 7) {
      wait_in_order(bytes{stage_.extra_bytes() / 4 + 1});
    } else {
      const doing noted("charge");
      charged = bool{budget.charge(amount)};
      whole().require(charged, "a charge without a deadline failed");
    }
    whole().trace("charge: bytes, how, ok", amount.count, how, charged ? 1 : 0);
    if (charged) {
      stage_.hold();
      budget.release(amount);
    }
    stage_.pause();
  }
}

// Waits with a ticket; those of one amount must be served in the order in which they came.
void cast::wait_in_order(bytes amount) {
  const doing noted("wait with a ticket");
  actor& self = *world::actor_of_now();
  const time_point deadline = random().one_in(4) ? soon() : no_deadline;
  budget_ticket ticket(stage_.budget(), amount);
  self.calm = true;  // from its entry into the queue to ours into the list
  const auto begun = ticket.begin();
  const auto mine = tickets_.emplace(tickets_.end(), amount, &ticket);
  self.calm = false;
  whole().require(bool{begun}, "a ticket was refused that there is memory for");
  bool in_time = true;
  while (!ticket.granted(deadline) && in_time) in_time = self.park_until(deadline);
  const bool granted = ticket.granted(deadline);
  if (granted) {
    for (auto older = tickets_.begin(); older != mine; ++older) {
      whole().require(older->first != amount || !older->second->linked(), "a ticket was served before an older one");
    }
    ticket.take();
  }
  tickets_.erase(mine);
  if (!granted) return;
  stage_.hold();
  stage_.budget().release(amount);
}

void cast::use_objects(object_cache<thing>& things) {
  const actor* const self = world::actor_of_now();
  for (unsigned i = 0; i < stage_.settings.operations; ++i) {
    const doing noted("use objects");
    std::array<thing*, 6> mine{};
    std::size_t got = 0;
    if (random().one_in(3)) {
      got = things.get_many(mine.data(), random().between(1, mine.size()));
    } else if (random().one_in(3)) {
      mine[0] = things.try_get();
      got = mine[0] != nullptr ? 1 : 0;
    } else {
      const time_point deadline = soon();
      const result<thing*> object = things.get(deadline);
      if (object) mine[got++] = *object;
      whole().require(object || object.error() == error_from(ENOMEM) || whole().now() >= deadline,
                      "a get failed before its deadline");
    }
    whole().trace("objects", got);
    for (std::size_t each = 0; each < got; ++each) {
      whole().require(std::exchange(mine[each]->owner, self) == nullptr, "an object was given to two");
    }
    if (got > 0 && random().one_in(3)) {  // who holds memory may wait for pages that are sure to be there
      staged_file& at = any_file();
      const auto [first, count] = any_units(at);
      stage_.read(at, first, count);
    }
    stage_.hold();
    for (std::size_t each = 0; each < got; ++each) {
      whole().require(std::exchange(mine[each]->owner, nullptr) == self, "an object was given to another");
    }
    if (random().one_in(2)) {
      things.put_many(mine.data(), got);
    } else {
      while (got > 0) things.put(mine[--got]);
    }
    if (random().one_in(10)) things.trim();
    stage_.pause();
  }
}

// Holds admissions and pins nothing.
void cast::hoard() {
  for (unsigned i = 0; i < stage_.settings.operations; ++i) {
    page_cache& cache = *stage_.caches()[random().below(stage_.caches().size())];
    const auto most = static_cast<std::uint32_t>(random().between(1, 2 * stage_.settings.guaranteed_pages));
    pin_admission admission = stage_.admit(cache, 1, most, random().one_in(2) ? soon() : no_deadline);
    stage_.hold();
    if (admission.pages() > 1 && random().one_in(2)) admission.reduce(admission.pages() / 2);
    stage_.hold();
    admission.reset();
    stage_.pause();
  }
}

// Makes a disk fail all of one kind for a while.
void cast::trouble() {
  while (others_act()) {
    whole().sleep(microseconds(random().between(200, 5000)));
    disk_settings& disk = any_file().disk.settings;
    const disk_settings before = disk;
    const std::uint64_t which = random().below(4);
    std::uint64_t& share = which == 0   ? disk.reads_fail
                           : which == 1 ? disk.flushes_fail
                           : which == 2 ? disk.discards_fail
                                        : disk.writes_fail;
    const std::uint64_t usual = std::exchange(share, random().one_in(2) ? 1000 : 400);
    if (random().one_in(4)) disk.latency_us = 20 * disk.latency_us;
    whole().trace("trouble: kind", which);
    whole().sleep(microseconds(random().between(100, 8000)));
    share = usual;
    disk.latency_us = before.latency_us;
    whole().trace("trouble ends: kind", which);
  }
}

// No disk can be written for a while.
void cast::fail_writes() {
  std::vector<std::uint64_t> usual;
  for (const auto& each : stage_.files()) usual.push_back(std::exchange(each->disk.settings.writes_fail, 1000));
  whole().sleep(microseconds(stage_.settings.writes_fail_us));
  for (std::size_t i = 0; i < usual.size(); ++i) stage_.files()[i]->disk.settings.writes_fail = usual[i];
  whole().trace("writes succeed again");
}

// What the others wait for without a deadline fits into the lowest of these limits.
void cast::change_limit() {
  const doing noted("change the limit");
  while (others_act()) {
    whole().sleep(microseconds(random().between(100, 4000)));
    const bytes wanted = stage_.highest_limit() - bytes{random().below(stage_.extra_bytes() / 2 + 1)};
    whole().require(bool{stage_.budget().set_limit(wanted)}, "a limit was refused");
    whole().require(stage_.budget().wanted_limit() == wanted, "the limit is another than was set");
    whole().trace("limit: wanted, holds, used", wanted.count, stage_.budget().limit().count,
                  stage_.budget().used().count);
  }
  whole().require(bool{stage_.budget().set_limit(stage_.highest_limit())}, "the highest limit was refused");
}

// Looks at figures while others work, and at what a power cut would leave.
void cast::look() {
  unsigned cuts = stage_.settings.power_cuts;
  while (others_act()) {
    whole().sleep(microseconds(random().between(100, 4000)));
    for (const auto& each : stage_.caches()) {
      const page_cache_stats figures = each->stats();
      whole().require(figures.pins_admitted <= figures.pages_owned, "more pins are admitted than pages owned");
      whole().require(figures.pages_owned >= stage_.settings.guaranteed_pages, "a guaranteed page was given back");
    }
    look_at_limit();
    (void)stage_.budget().account();
    if (cuts > 0) {
      --cuts;
      stage_.cut_power(random().one_in(3));
    }
  }
}

void cast::look_at_limit() {
  actor& self = *world::actor_of_now();
  self.calm = true;  // both figures are of one moment
  const bytes used = stage_.budget().used();
  const bytes limit = stage_.budget().limit();
  self.calm = false;
  whole().require(used <= limit, "more is used than the limit allows");
}

void cast::keep() {
  while (others_act()) {
    whole().sleep(microseconds(random().between(500, 5000)));
    cache::keeper::of_process().round();
  }
}

void cast::play_all() {
  const story_settings& chosen = stage_.settings;
  std::unique_ptr<object_cache<thing>> things;
  if (chosen.object_users > 0) {
    things = std::make_unique<object_cache<thing>>(
        "things", object_cache_options{.limit = random().between(2, 40), .budget = &stage_.budget()});
  }
  for (unsigned round = 0; round < chosen.rounds; ++round) {
    std::vector<std::pair<std::string, std::function<void()>>> parts;
    const auto add = [&](const char* name, unsigned count, auto part) {
      for (unsigned i = 0; i < count; ++i) {
        ++acting_;
        parts.emplace_back(name + std::to_string(i), [this, part] {
          part();
          --acting_;
        });
      }
    };
    add("file user ", chosen.file_users, [this] { use_files(); });
    add("charger ", chosen.chargers, [this] { charge_memory(); });
    add("hoarder ", chosen.hoarders, [this] { hoard(); });
    add("object user ", chosen.object_users, [this, &things] { use_objects(*things); });
    if (chosen.troubled) parts.emplace_back("trouble", [this] { trouble(); });
    if (chosen.writes_fail_us > 0 && round == 0) parts.emplace_back("breaker", [this] { fail_writes(); });
    if (chosen.limit_changes) parts.emplace_back("limit changer", [this] { change_limit(); });
    parts.emplace_back("observer", [this] { look(); });
    if (chosen.object_users > 0) parts.emplace_back("keeper", [this] { keep(); });
    stage_.play(std::move(parts));
    stage_.audit();
    if (things != nullptr) things->audit();
    if (round + 1 < chosen.rounds && random().one_in(2)) stage_.flush_and_compare();
  }
}

}  // namespace

story_settings settings_of(std::uint64_t seed) {
  random_source random(random_source::mixed(seed) + 1);
  story_settings made;
  made.world.seed = seed;
  const std::array<std::uint64_t, 5> distances{0, 1000, 200, 40, 10};
  made.world.steps_between_switches = distances[random.below(distances.size())];
  made.world.time_presses = random.one_in(2);
  made.world.stray_tokens = random.one_in(4);
  made.guaranteed_pages = static_cast<std::uint32_t>(random.one_in(2) ? random.between(1, 4) : random.between(5, 24));
  made.extra_pages = random.one_in(3) ? random.between(2, 6) : random.between(7, 60);
  if (random.one_in(3)) made.cache_pages_max = made.guaranteed_pages + random.below(8);
  made.caches = random.one_in(4) ? 2 : 1;
  made.files = random.one_in(3) ? 2 : 1;
  made.rounds = static_cast<unsigned>(random.between(1, 3));
  made.operations = static_cast<unsigned>(random.between(3, 10));
  made.file_users = static_cast<unsigned>(random.one_in(4) ? random.between(20, 50) : random.between(2, 12));
  made.chargers = static_cast<unsigned>(random.one_in(2) ? random.between(1, 8) : 0);
  made.hoarders = static_cast<unsigned>(random.one_in(3) ? random.between(1, 4) : 0);
  if (random.one_in(3)) {
    made.object_users = static_cast<unsigned>(random.between(1, 8));
    made.extra_pages += 40;
  }
  made.power_cuts = static_cast<unsigned>(random.one_in(2) ? random.between(1, 8) : 0);
  made.limit_changes = random.one_in(3);
  made.troubled = random.one_in(2);
  made.user_reserve = random.one_in(4);
  if (random.one_in(2)) made.high_mark_percent = static_cast<std::uint8_t>(random.between(50, 95));
  if (random.one_in(5)) made.page_length = page_size << random.between(1, 2);
  made.policy = eviction_policies[random.below(eviction_policies.size())];
  if (random.one_in(2)) made.read_ahead_pages = random.between(1, 8);
  made.disk.size = made.page_length / 64 * random.between(1, random.one_in(3) ? 16 * 64 : 80 * 64);
  made.disk.discards = !random.one_in(4);
  made.disk.latency_us = random.one_in(8) ? 0 : random.between(5, 300);
  made.disk.slow_in_1000 = random.one_in(2) ? 20 : 0;
  made.disk.tears = !random.one_in(4);
  if (random.one_in(2)) {
    made.disk.reads_fail = random.one_in(2) ? random.below(60) : 0;
    made.disk.writes_fail = random.one_in(2) ? random.below(200) : 0;
    made.disk.discards_fail = random.one_in(2) ? random.below(200) : 0;
    made.disk.flushes_fail = random.one_in(2) ? random.below(200) : 0;
  }
  made.disk.writes_at_once = random.one_in(3) ? 1 : random.between(2, 32);
  return made;
}

outcome run_story(const story_settings& chosen) {
  return stage::perform(chosen, [](stage& where) {
    where.build();
    cast(where).play_all();
    where.take_down();
  });
}

}  // namespace larder::simulation

// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/engine.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "base/check.h"
#include "tests/sched/crash.h"

namespace larder::sched {

using base::schedule::access;

namespace {

engine* the_running = nullptr;

// What schedules that failed have left.
std::vector<scenario*>& abandoned() {
  static auto* scenarios = new std::vector<scenario*>;
  return *scenarios;
}

const char* name_of(access how) {
  static constexpr std::array names{"load",
                                    "store",
                                    "store weakly",
                                    "update",
                                    "lock",
                                    "unlock",
                                    "sleep",
                                    "wake",
                                    "look in a sequence at",
                                    "store in a sequence",
                                    "fence"};
  return names[static_cast<std::size_t>(how)];
}

}  // namespace

engine::engine(scenario_factory factory, const system_settings& chosen)
    : factory_(std::move(factory)), settings_(chosen) {
  catch_crashes();
  for (logical_thread& each : threads_) each.home = this;
  for (unsigned i = 0; i < threads_max; ++i) open_.next[i] = &threads_[i].next;
}

engine::~engine() = default;

engine* engine::running() { return the_running; }

const outcome& engine::run(strategy& decides, bool traced) {
  outcome_.failed = false;
  outcome_.message.clear();
  outcome_.schedule.clear();
  outcome_.trace.clear();
  outcome_.steps = 0;
  decides_ = &decides;
  traced_ = traced;
  unnamed_.clear();
  clock_ = time_point{} + std::chrono::seconds(1);
  spurious_left_ = settings_.spurious_wakes;
  migrations_left_ = settings_.migrations;
  restarts_left_ = settings_.restarts;
  delays_left_ = settings_.store_delays;
  count_ = 0;
  current_ = outside;
  starting_ = false;
  logical_thread& frame = threads_[outside];
  frame.reset();
  the_running = this;
  frame.own.start(begin_outside, this);
  flow::switch_over(caller_, frame.own);
  the_running = nullptr;
  for (const logical_thread& each : threads_) each.own.check_stack();
  if (outcome_.failed) {
    for (logical_thread& each : threads_) each.own.give_up_stack();
    if (scenario_ != nullptr) abandoned().push_back(scenario_.release());
  }
  return outcome_;
}

void engine::logical_thread::reset() {
  ended = asleep = woken = yielded = timed_out = false;
  in_sequence = interrupted = false;
  parker.emplace();
  replaced_parker = nullptr;
  locks.fill(0);
  slot = nullptr;
  delays_store = false;
  buffer.clear();
}

void engine::begin_outside(void* self) {
  flow::arrive_first();
  auto* mine = static_cast<engine*>(self);
  mine->set_up_and_audit();
  flow::switch_over(mine->threads_[outside].own, mine->caller_, true);
}

void engine::set_up_and_audit() {
  std::string thrown;
  try {
    scenario_ = factory_();
    start_threads();
    current_ = outside;
    scenario_->audit();
    scenario_.reset();
  } catch (const std::exception& error) {
    thrown = error.what();
  }
  if (!thrown.empty()) fail("set-up, audit or destructor threw: " + thrown);
}

// Each thread runs its private code up to its first operation; then the choices begin. Returns when all have ended.
void engine::start_threads() {
  count_ = static_cast<unsigned>(scenario_->bodies().size());
  LARDER_CHECK(count_ > 0 && count_ <= threads_max, "a scenario of %u threads", count_);
  starting_ = true;
  for (current_ = 0; current_ < count_; ++current_) {
    logical_thread& fresh = threads_[current_];
    fresh.reset();
    fresh.body = &scenario_->bodies()[current_];
    fresh.next = {.cpu = static_cast<std::uint8_t>(fresh.body->cpu % settings_.cpus),
                  .on_shared_cpu = settings_.sequences != os::sequence_mode::sharded};
    fresh.own.start(begin_thread, &fresh);
    flow::switch_over(threads_[outside].own, fresh.own);
  }
  starting_ = false;
  current_ = outside;
  go_on();
}

void engine::begin_thread(void* thread) {
  flow::arrive_first();
  auto& mine = *static_cast<logical_thread*>(thread);
  engine& home = *mine.home;
  std::string thrown;
  try {
    mine.body->run();
  } catch (const std::exception& error) {
    thrown = error.what();
  }
  if (!thrown.empty()) home.fail(std::string(mine.body->name) + " threw: " + thrown);
  mine.ended = true;
  if (home.starting_) flow::switch_over(mine.own, home.threads_[outside].own, true);
  home.go_on();
}

void engine::point(const void* object, access how) {
  if (current_ == outside) return;
  logical_thread& mine = threads_[current_];
  mine.next.object = object;
  mine.next.how = how;
  if (starting_) {
    flow::switch_over(mine.own, threads_[outside].own);
  } else if (mine.woken && can_run(mine)) {
    mine.woken = false;
  } else {
    mine.woken = false;
    go_on();
  }
  if (how != access::load && how != access::weak_store && !is_sequence(how)) mine.buffer.flush();
  if (traced_) note(mine, sched::name_of(how), object);
}

// Two steps: the yield itself, which must not change places with anything, and the going on.
void engine::yield() {
  if (current_ == outside) return;
  point(nullptr, access::fence);
  threads_[current_].yielded = true;
  threads_[current_].woken = true;
  go_on();
}

// The current flow gives way to whom the strategy chooses, which may be itself.
void engine::go_on() {
  const unsigned from = current_;
  flow& own = threads_[from].own;
  const bool ends = from != outside && threads_[from].ended;
  const auto* const begin = threads_.data();
  if (std::all_of(begin, begin + count_, [](const logical_thread& each) { return each.ended; })) {
    for (logical_thread& each : threads_) each.buffer.flush();
    if (from == outside) return;
    flow::switch_over(own, threads_[outside].own, true);
  }
  if (++outcome_.steps > settings_.steps_max) {
    fail("livelock: no end within " + std::to_string(settings_.steps_max) + " steps");
  }
  action chosen = decide(from);
  for (; chosen.what == action::kind::flush; chosen = decide(from)) {
    logical_thread& owner = threads_[chosen.thread];
    note(owner, "'s oldest store leaves its buffer:", owner.buffer.flush_oldest());
  }
  apply(chosen);
  if (chosen.thread != from) flow::switch_over(own, threads_[chosen.thread].own, ends);
}

action engine::decide(unsigned from) {
  list_options(from);
  const unsigned index = decides_->choose(open_);
  LARDER_CHECK(index < open_.count, "a strategy chose option %u of %u", index, open_.count);
  if (open_.count > 1) outcome_.schedule.push_back(open_.options[index]);
  return open_.options[index];
}

void engine::fail(std::string message) {
  outcome_.failed = true;
  outcome_.message = std::move(message);
  flow::switch_over(threads_[current_].own, caller_, true);
  __builtin_unreachable();
}

void engine::fail_for_deadlock() {
  std::string message = "deadlock:";
  for (unsigned number = 0; number < count_; ++number) {
    const logical_thread& each = threads_[number];
    if (each.ended) continue;
    message += std::string(message.back() == ':' ? " " : ", ") + each.body->name +
               (each.asleep ? " sleeps and nobody wakes it" : " waits for " + name_of(each.next.object));
  }
  fail(std::move(message));
}

void engine::note(const logical_thread& thread, const char* what, const void* object) {
  if (!traced_) return;
  std::string line = thread.body->name;
  line.resize(std::max<std::size_t>(line.size(), 12), ' ');
  line += std::string(" ") + what;
  if (object != nullptr) line += " " + name_of(object);
  outcome_.trace.push_back(std::move(line));
}

std::string engine::name_of(const void* object) {
  const auto* address = static_cast<const std::byte*>(object);
  if (scenario_ != nullptr) {
    for (const scenario::named& each : scenario_->names()) {
      if (address < each.begin || address >= each.begin + each.size) continue;
      const auto offset = static_cast<std::size_t>(address - each.begin);
      return offset == 0 ? each.name : each.name + "+" + std::to_string(offset);
    }
  }
  const auto place = std::find(unnamed_.begin(), unnamed_.end(), object);
  const auto number = place - unnamed_.begin() + 1;
  if (place == unnamed_.end()) unnamed_.push_back(object);
  return "object " + std::to_string(number);
}

}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/world.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "base/check.h"

namespace larder::simulation {
namespace {

world* active = nullptr;

constexpr std::size_t trace_length = 160;

// Flows that were used and can be started again, with their stacks.
std::vector<std::unique_ptr<sched::flow>>& unused_flows() {
  static auto* flows = new std::vector<std::unique_ptr<sched::flow>>;
  return *flows;
}

// Microseconds, for reports.
unsigned long long us(time_point when) {
  return static_cast<unsigned long long>(
      std::chrono::duration_cast<std::chrono::microseconds>(when.time_since_epoch()).count());
}

}  // namespace

actor::actor(world& whole, std::string chosen_name, std::function<void()> chosen_body)
    : name(std::move(chosen_name)),
      number(static_cast<unsigned>(whole.actors_.size())),
      world_(whole),
      body_(std::move(chosen_body)) {
  if (unused_flows().empty()) {
    flow_ = std::make_unique<sched::flow>();
  } else {
    flow_ = std::move(unused_flows().back());
    unused_flows().pop_back();
  }
}

bool actor::park_until(time_point deadline) {
  base::check_no_lock_held("parking");
  LARDER_CHECK(world_.running_ == this, "%s parks while another runs", name.c_str());
  world_.step();
  if (std::exchange(token_, false)) return true;
  if (deadline <= world_.now_) return false;
  const std::uint64_t wait = ++waits_;
  if (deadline != no_deadline) {
    world_.at(deadline, [this, wait] {
      if (waits_ != wait || now_ != condition::parked) return;
      in_time_ = false;
      world_.make_ready(*this);
    });
  }
  in_time_ = true;
  now_ = condition::parked;
  world_.leave();
  ++waits_;
  return std::exchange(token_, false) || in_time_;
}

void actor::unpark() {
  token_ = true;
  if (now_ == condition::parked) world_.make_ready(*this);
  if (world_.running_ != nullptr) world_.step();
}

world::world(const world_settings& chosen) : settings_(chosen), random_(random_source::mixed(chosen.seed)) {
  traced_.reserve(trace_length);
  now_ = time_point(std::chrono::seconds(1));
  steps_to_switch_ = settings_.steps_between_switches;
}

world::~world() {
  LARDER_CHECK(living_ == 0, "a world ends before its actors");
  for (actor& each : actors_) unused_flows().push_back(std::move(each.flow_));
}

world* world::of_now() { return active; }
actor* world::actor_of_now() { return active != nullptr ? active->running_ : nullptr; }

actor& world::start(std::string name, std::function<void()> body) {
  actor& made = actors_.emplace_back(*this, std::move(name), std::move(body));
  made.flow_->start(&world::begin_actor, &made);
  ++living_;
  ready_.push_back(&made);
  return made;
}

void world::begin_actor(void* started) {
  sched::flow::arrive_first();
  auto& self = *static_cast<actor*>(started);
  self.body_();
  world& whole = self.world_;
  for (const int held : self.locks_held_) whole.require(held == 0, "an actor ended with a lock held");
  self.now_ = actor::condition::ended;
  --whole.living_;
  whole.note_progress();
  whole.running_ = nullptr;
  sched::flow::switch_over(*self.flow_, whole.outside_, true);
}

void world::run() {
  world* const before = std::exchange(active, this);
  while (living_ > 0 && failure_.empty()) {
    for (const auto& law : laws_) law();
    if (settings_.stray_tokens && random_.one_in(50)) stray_token();
    if (!events_.empty() && (ready_.empty() || (settings_.time_presses && random_.one_in(8)))) {
      fire_next_event();
      continue;
    }
    actor* next = choose();
    if (next == nullptr) {
      fail("deadlock: all wait, and nothing is to come\n%s", describe_actors().c_str());
      break;
    }
    check_progress();
    if (!failure_.empty()) break;
    ++switches_;
    running_ = next;
    next->now_ = actor::condition::running;
    sched::flow::switch_over(outside_, *next->flow_);
    running_ = nullptr;
    next->flow_->check_stack();
  }
  active = before;
}

actor* world::choose() {
  if (ready_.empty()) std::swap(ready_, yielded_);
  if (ready_.empty()) return nullptr;
  std::size_t which = random_.below(ready_.size());
  for (int again = 0; again < 3 && ready_[which]->slow; ++again) which = random_.below(ready_.size());
  actor* const chosen = ready_[which];
  ready_[which] = ready_.back();
  ready_.pop_back();
  return chosen;
}

void world::stray_token() {
  actor& one = actors_[random_.below(actors_.size())];
  one.token_ = true;
  if (one.now_ == actor::condition::parked) make_ready(one);
}

void world::at(time_point when, std::function<void()> happens) {
  events_.push_back({when, ++events_made_, std::move(happens)});
  std::push_heap(events_.begin(), events_.end(), [](const event& one, const event& other) {
    return std::pair(one.when, one.order) > std::pair(other.when, other.order);
  });
}

void world::fire_next_event() {
  std::pop_heap(events_.begin(), events_.end(), [](const event& one, const event& other) {
    return std::pair(one.when, one.order) > std::pair(other.when, other.order);
  });
  const event next = std::move(events_.back());
  events_.pop_back();
  now_ = std::max(now_, next.when);
  next.happens();
  // Who yielded waits for others to do something; something has happened now.
  ready_.insert(ready_.end(), yielded_.begin(), yielded_.end());
  yielded_.clear();
}

void world::make_ready(actor& one) {
  one.now_ = actor::condition::ready;
  ready_.push_back(&one);
}

void world::leave() { sched::flow::switch_over(*running_->flow_, outside_); }

// A place where another may go on.
void world::step() {
  if (++steps_ - progress_steps_ > settings_.steps_without_progress_max) check_progress();
  if (settings_.steps_between_switches == 0 || --steps_to_switch_ > 0) return;
  steps_to_switch_ = random_.between(1, 2 * settings_.steps_between_switches - 1);
  if (running_->calm) return;
  make_ready(*running_);
  leave();
}

void world::point(const void* object, base::schedule::access how) {
  if (how == base::schedule::access::lock) {
    step();
    wait_for_lock(object);
  } else if (how == base::schedule::access::unlock) {
    for (std::size_t i = 0; i < at_locks_.size();) {
      if (at_locks_[i]->lock_ != object) {
        ++i;
        continue;
      }
      make_ready(*at_locks_[i]);
      at_locks_[i] = at_locks_.back();
      at_locks_.pop_back();
    }
  } else {
    step();
  }
}

void world::wait_for_lock(const void* lock) {
  while (*static_cast<const volatile bool*>(lock)) {
    running_->lock_ = lock;
    running_->now_ = actor::condition::at_lock;
    at_locks_.push_back(running_);
    leave();
  }
}

void world::yield() {
  running_->now_ = actor::condition::yielded;
  yielded_.push_back(running_);
  ++steps_;
  leave();
}

void world::block() {
  running_->now_ = actor::condition::blocked;
  leave();
}

void world::wake(actor& blocked) {
  LARDER_CHECK(blocked.now_ == actor::condition::blocked, "%s is woken, but is not blocked", blocked.name.c_str());
  make_ready(blocked);
}

void world::sleep(std::chrono::nanoseconds duration) {
  actor& self = *running_;
  at(now_ + duration, [this, &self] { wake(self); });
  block();
}

void world::note_progress() {
  progress_steps_ = steps_;
  progress_time_ = now_;
}

void world::check_progress() {
  if (steps_ - progress_steps_ > settings_.steps_without_progress_max) {
    fail("livelock: nobody finished anything in %llu steps\n%s",
         static_cast<unsigned long long>(steps_ - progress_steps_), describe_actors().c_str());
  }
  if (now_ - progress_time_ > settings_.time_without_progress_max) {
    fail("livelock: nobody finished anything in %llu us\n%s", us(now_) - us(progress_time_), describe_actors().c_str());
  }
}

void world::fail(const char* format, ...) {
  if (failure_.empty()) {
    va_list arguments;
    va_start(arguments, format);
    std::array<char, 16384> text{};
    std::vsnprintf(text.data(), text.size(), format, arguments);
    va_end(arguments);
    failure_ = text.data();
    if (running_ != nullptr) failure_ += "\n  found by " + running_->name + " while it does: " + running_->doing;
  }
  if (running_ != nullptr) leave();
}

std::string world::describe_actors() {
  actor* const running = std::exchange(running_, nullptr);  // what it looks at is no step of the world
  std::string all;
  int listed = 0;
  for (const actor& each : actors_) {
    if (each.now_ == actor::condition::ended) continue;
    if (++listed > 40) continue;
    std::array<char, 256> line{};
    const char* how = "could go on";
    if (each.now_ == actor::condition::parked) how = "is parked";
    if (each.now_ == actor::condition::at_lock) how = "waits for a lock";
    if (each.now_ == actor::condition::blocked) how = "waits for the disk, or sleeps";
    std::snprintf(line.data(), line.size(), "  %s %s, doing: %s", each.name.c_str(), how, each.doing);
    all += line.data();
    if (each.note.set_now()) {
      const os::wait_contents waited = each.note.contents();
      os::wait_subject subject;
      if (waited.look != nullptr) waited.look(waited.object, subject);
      std::snprintf(line.data(), line.size(), "; waits for %s %s since %llu us", waited.kind, subject.name,
                    us(waited.since));
      all += line.data();
    }
    all += '\n';
  }
  if (listed > 40) all += "  … and " + std::to_string(listed - 40) + " more\n";
  running_ = running;
  return all;
}

void world::trace(const char* what, std::uint64_t first, std::uint64_t second, std::uint64_t third) {
  const trace_entry made{now_, running_, what, {first, second, third}};
  if (traced_.size() < trace_length) {
    traced_.push_back(made);
  } else {
    traced_[traced_count_ % trace_length] = made;
  }
  ++traced_count_;
  const auto add = [this](std::uint64_t value) { fingerprint_ = random_source::mixed(fingerprint_ ^ value) + value; };
  add(us(now_));
  add(running_ != nullptr ? running_->number : ~0U);
  for (const std::uint64_t figure : made.figures) add(figure);
}

std::string world::last_events() const {
  std::string all;
  for (std::uint64_t i = traced_count_ - traced_.size(); i < traced_count_; ++i) {
    const trace_entry& each = traced_[i % trace_length];
    std::array<char, 256> line{};
    const int length = std::snprintf(line.data(), line.size(), "%10llu us  %-16s ", us(each.when),
                                     each.who != nullptr ? each.who->name.c_str() : "-");
    all.append(line.data(), static_cast<std::size_t>(length));
    all += each.what;
    for (const std::uint64_t figure : each.figures) all += " " + std::to_string(figure);
    all += '\n';
  }
  return all;
}

int* world::locks_held() { return running_->locks_held_.data(); }
void** world::thread_slot() { return &running_->thread_slot_; }

}  // namespace larder::simulation

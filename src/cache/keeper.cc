// SPDX-License-Identifier: Apache-2.0
//
// The keeper's thread sleeps while every cache is at rest (KF-46): nothing is in its arrays nor in its depot, every
// free object belongs to its reservation, and its arrays are closed, so that the next get or put goes below them and
// wakes the keeper. From then on it visits the cache every period. What a cache's round does stands in cache_keep.cc.
//
// A visit holds no lock; the visited cache is marked busy, and whoever removes it waits for the end of the visit.
#include "cache/keeper.h"

#include <cstdlib>

#include "base/check.h"
#include "os/clock.h"
#include "os/fork.h"
#include "os/waiting.h"

namespace larder::cache {
namespace {

constexpr std::chrono::nanoseconds period_min = std::chrono::milliseconds(1);
constexpr std::chrono::nanoseconds period_max = std::chrono::hours(1);

}  // namespace

struct keeper::fork_hooks final : os::fork_participant {
  explicit fork_hooks(keeper& of) : os::fork_participant(base::lock_rank::keeper), owner(of) {}
  void before_fork() override { owner.guard_.lock_for_fork(); }
  void in_parent() override { owner.guard_.unlock_after_fork(); }
  void in_child() override {
    owner.thread_.forget();
    for (kept* each = owner.all_.front(); each != nullptr; each = owner.all_.after(*each)) {
      each->awake_ = false;
      each->busy_ = false;
    }
    owner.guard_.unlock_after_fork();
  }
  keeper& owner;
};

keeper::keeper() : fork_hooks_(new fork_hooks(*this)) { os::join_forks(*fork_hooks_); }

#ifndef LARDER_SCHEDULED  // where each schedule has a keeper of its own
keeper& keeper::of_process() {
  static auto* instance = [] {
    auto* made = new keeper;
    std::atexit([] { of_process().thread_.stop(); });
    return made;
  }();
  return *instance;
}
#endif

void keeper::add(kept& one) {
  const base::lock locked(guard_);
  all_.push_back(one);
}

void keeper::remove(kept& one) {
  base::unique_lock locked(guard_);
  os::parker& self = os::parker::current();
  time_point since{};
  while (one.busy_) {
    one.remover_ = &self;
    locked.unlock();
    {
      const os::waiting noted(self, {.kind = "keeper", .object = &one}, since);
      self.park();
    }
    locked.lock();
  }
  base::intrusive_list<kept>::remove(one);
}

bool keeper::wake(kept& one) {
  const base::lock locked(guard_);
  one.awake_ = true;
  return thread_.wake();
}

bool keeper::anything_awake() const {
  for (kept* each = all_.front(); each != nullptr; each = all_.after(*each)) {
    if (each->awake_) return true;
  }
  return false;
}

void keeper::run() {
  base::unique_lock locked(guard_);
  time_point last = os::now();
  while (!thread_.stopping()) {
    const bool idle = !anything_awake();
    const time_point due = idle ? no_deadline : last + options_.period;
    if (!idle && os::now() >= due) {
      locked.unlock();
      round();
      locked.lock();
      last = os::now();
      continue;
    }
    thread_.sleep_until(locked, due);
    if (idle) last = os::now();  // a period begins with the first use
  }
}

void keeper::round() {
  base::unique_lock locked(guard_);
  const std::uint64_t number = ++rounds_;
  const std::size_t objects_max = options_.objects_per_round;
  for (kept* each = all_.front(); each != nullptr && !thread_.stopping(); each = all_.after(*each)) {
    if (!each->awake_ || each->busy_ || each->round_ >= number) continue;
    each->round_ = number;
    each->awake_ = false;  // a wake from now on is kept
    each->busy_ = true;
    locked.unlock();
    const bool more = each->keep(objects_max);
    locked.lock();
    each->busy_ = false;
    each->awake_ = each->awake_ || more;
    if (each->remover_ != nullptr) each->remover_->unpark();
  }
}

result<void> keeper::configure(const keeper_options& chosen) {
  if (chosen.period < period_min || chosen.period > period_max || chosen.objects_per_round == 0) {
    return error_from(EINVAL);
  }
  const base::lock locked(guard_);
  options_ = chosen;
  thread_.interrupt();
  return {};
}

keeper_options keeper::configuration() {
  const base::lock locked(guard_);
  return options_;
}

}  // namespace larder::cache

namespace larder {

result<void> configure_keeper(const keeper_options& chosen) { return cache::keeper::of_process().configure(chosen); }
keeper_options keeper_configuration() { return cache::keeper::of_process().configuration(); }

}  // namespace larder

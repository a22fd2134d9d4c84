// SPDX-License-Identifier: Apache-2.0
//
// A call is in one place at any time: with a helper, or in the queue, and then every helper is busy, or about to look
// at the queue under the guard. A helper leaves the list of idle ones under the guard too: taken by a caller, who gives
// it a call with that, or by itself when its time is up, and then nobody gives it one any more.
#include "task/helper_pool.h"

#include <cerrno>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/mutant.h"
#include "os/clock.h"
#include "os/waiting.h"

namespace larder::task_layer {

using base::is_mutant;
using base::mutant;

// On the stack of who calls.
struct helper_pool::pending : base::list_link<> {
  pending(void (*what)(void*), void* with) : run(what), argument(with) {}

  void (*const run)(void*);
  void* const argument;
  os::parker& owner = os::parker::current();
  std::error_code error;           // written before `done`
  base::atomic<bool> done{false};  // after which this is not touched any more

  void finish() {
    os::parker& told = owner;
    done = true;
    told.unpark();
  }
};

helper_pool::helper_pool(std::string name, unsigned helpers_max, std::chrono::nanoseconds idle_max)
    : name_(std::move(name)), helpers_max_(helpers_max), idle_max_(idle_max) {}

helper_pool::~helper_pool() { end(); }

result<void> helper_pool::call(void (*run)(void*), void* argument) {
  pending mine(run, argument);
  bool start_one = false;
  std::uint64_t number = 0;
  {
    const base::lock locked(guard_);
    if (!give_to_idle(mine)) {
      start_one = starting_ + running_ < helpers_max_;
      if (start_one) {
        ++starting_;
        number = started_++;
      } else {
        waiting_.push_back(mine);
      }
    }
  }
  if (start_one) start_for(mine, number);
  const os::waiting noted(mine.owner, {.kind = "blocking call"});
  while (!mine.done) mine.owner.park();
  if (mine.error) return mine.error;
  return {};
}

bool helper_pool::give_to_idle(pending& one) {
  helper* chosen = idle_.pop_front();
  if (chosen == nullptr) return false;
  chosen->given = &one;
  chosen->parker->unpark();
  return true;
}

void helper_pool::start_for(pending& first, std::uint64_t number) {
  join_ended();
  std::unique_ptr<helper> fresh;
  result<void> started = error_from(ENOMEM);
  try {
    fresh = std::make_unique<helper>();
    fresh->given = &first;
    fresh->number = number;
    started = start(*fresh);
  } catch (const std::bad_alloc&) {
    // Nothing has started.
  }
  const base::lock locked(guard_);
  if (started) {
    helper& one = *fresh.release();
    one.known = true;
    if (one.ended) ended_.push_back(one);
    return;
  }
  --starting_;
  if (give_to_idle(first)) return;
  waiting_.push_back(first);
  // As long as there is another, it will see to it, or fail here in turn.
  if (starting_ + running_ != 0) return;
  while (pending* unlucky = waiting_.pop_front()) {
    unlucky->error = started.error();
    unlucky->finish();
    if (is_mutant(mutant::failure_told_to_one)) return;
  }
}

result<void> helper_pool::start(helper& one) {
  auto thread = os::thread::start((name_ + std::to_string(one.number)).c_str(), [this, &one] { serve(one); });
  if (!thread) return thread.error();
  one.thread = std::move(*thread);
  return {};
}

void helper_pool::join(helper& one) { one.thread.join(); }

void helper_pool::serve(helper& self) {
  self.parker = &os::parker::current();
  {
    const base::lock locked(guard_);
    --starting_;
    ++running_;
  }
  pending* next = std::exchange(self.given, nullptr);
  while (next != nullptr) {
    next->run(next->argument);
    next->finish();
    next = next_call(self);
  }
}

// The next call, or null: then the helper has ended.
helper_pool::pending* helper_pool::next_call(helper& self) {
  base::unique_lock locked(guard_);
  if (pending* oldest = waiting_.pop_front(); oldest != nullptr) return oldest;
  idle_.push_front(self);
  const time_point until = os::now() + idle_max_;
  bool in_time = true;
  while (self.given == nullptr && in_time && ender_ == nullptr) {
    locked.unlock();
    in_time = self.parker->park_until(until);
    locked.lock();
  }
  if (self.given != nullptr && (in_time || !is_mutant(mutant::helper_drops_call))) {
    return std::exchange(self.given, nullptr);
  }
  if (self.linked()) idle_.remove(self);
  --running_;
  self.ended = true;
  if (self.known) ended_.push_back(self);
  if (ender_ != nullptr) ender_->unpark();
  return nullptr;
}

void helper_pool::join_ended() {
  for (;;) {
    std::unique_ptr<helper> one;
    {
      const base::lock locked(guard_);
      one.reset(ended_.pop_front());
    }
    if (one == nullptr) return;
    join(*one);
  }
}

void helper_pool::end() {
  {
    base::unique_lock locked(guard_);
    LARDER_CHECK(waiting_.empty() && starting_ == 0, "helpers are ended while a call is under way");
    ender_ = &os::parker::current();
    for (helper* each = idle_.front(); each != nullptr; each = idle_.after(*each)) each->parker->unpark();
    while (running_ != 0) {
      locked.unlock();
      ender_->park();
      locked.lock();
    }
  }
  join_ended();
}

std::size_t helper_pool::helpers() const {
  const base::lock locked(guard_);
  return running_;
}

std::size_t helper_pool::idle_helpers() const {
  const base::lock locked(guard_);
  return idle_.size();
}

}  // namespace larder::task_layer

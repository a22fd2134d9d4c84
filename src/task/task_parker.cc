// SPDX-License-Identifier: Apache-2.0
//
// A word says empty, token or parked, as a thread's parker does; only the sleep differs: the task switches to its
// worker, which then publishes `parked`, and the unpark that finds it so makes it empty again and puts the task among
// the ready. There is exactly one such unpark for each park, so a task is never made ready twice, and none before the
// task has left its stack, so it never runs twice at once, whoever steals it. With a deadline the task is bound to its
// worker, whose timer it is.
//
// A wake-up costs one atomic operation and a park one: being made ready is the token of the unpark that did it, and
// what was written before it is seen by way of the queue.
#include "task/task_parker.h"

#include <mutex>

#include "base/lock_rank.h"
#include "base/mutant.h"
#include "base/yield.h"
#include "task/run_queue.h"

namespace larder::task_layer {
namespace {

struct parker_pool {
  std::mutex guard;
  task_parker* unused = nullptr;  // guarded by `guard`
  // All of them: who owns a parker lies in memory of a cache, where leak checkers look for nothing. Guarded by `guard`.
  task_parker* made = nullptr;
};

parker_pool& the_pool() {
  static auto* instance = new parker_pool;
  return *instance;
}

}  // namespace

task_parker& task_parker::take() {
  parker_pool& pool = the_pool();
  {
    const std::lock_guard<std::mutex> locked(pool.guard);
    if (pool.unused != nullptr) {
      task_parker* reused = pool.unused;
      pool.unused = reused->next_unused_;
      return *reused;
    }
  }
  auto* made = new task_parker;
  const std::lock_guard<std::mutex> locked(pool.guard);
  made->next_made_ = pool.made;
  pool.made = made;
  return *made;
}

void task_parker::set_owner(task_block& whole) {
  const std::lock_guard<std::mutex> locked(the_pool().guard);
  owner = &whole;
}

void task_parker::give_back(task_parker& unused) {
  parker_pool& pool = the_pool();
  const std::lock_guard<std::mutex> locked(pool.guard);
  unused.owner = nullptr;
  unused.next_unused_ = pool.unused;
  pool.unused = &unused;
}

void task_parker::for_each_owned(const std::function<void(task_parker&)>& show) {
  parker_pool& pool = the_pool();
  const std::lock_guard<std::mutex> locked(pool.guard);
  for (task_parker* each = pool.made; each != nullptr; each = each->next_made_) {
    if (each->owner != nullptr) show(*each);
  }
}

void task_parker::park() { park_until(no_deadline); }

bool task_parker::park_until(time_point wake) {
  base::check_no_lock_held("parking");
  // The first look is a plain one: a token that it does not see yet is seen by say_parked.
  //
  // Acquire pairs with unpark's compare-and-swap: what was written before it is seen after this.
  unsigned seen = token;
  if (state_.load(base::memory_order_relaxed) == token &&
      state_.compare_exchange_strong(seen, empty, base::memory_order_acquire)) {
    return true;
  }
  if (wake == no_deadline) {
    if (base::is_mutant(base::mutant::park_before_switch)) {
      if (say_parked()) base::yield();  // and another worker takes it
    }
    owner->home()->suspend_current();
    return true;
  }
  const stay_here bound;
  run_queue& here = *owner->home();
  expired_ = false;
  deadline_ = wake;
  in_timers_ = true;
  here.add_timer(*this);
  here.suspend_current();
  if (in_timers_) {
    in_timers_ = false;
    here.remove_timer(*this);
  }
  return !expired_;
}

// False if a token is there: it is taken, and the task goes on.
bool task_parker::say_parked() {
  unsigned seen = empty;
  if (state_.compare_exchange_strong(seen, parked)) return true;
  state_.exchange(empty, base::memory_order_acquire);
  return false;
}

void task_parker::unpark() {
  unsigned seen = state_.load(base::memory_order_relaxed);
  // A token that is there already is written once more: who takes it then sees what was written before this, too.
  while (!state_.compare_exchange_weak(seen, seen == parked ? empty : token)) {
  }
  if (seen == parked) run_queue::make_ready(*owner);
}

void task_parker::expire() {
  in_timers_ = false;  // the worker has taken it out
  unsigned seen = parked;
  // An unpark that came first has made the task ready already.
  if (!state_.compare_exchange_strong(seen, empty) && !base::is_mutant(base::mutant::expiry_makes_ready_too)) return;
  expired_ = true;
  run_queue::make_ready(*owner);
}

}  // namespace larder::task_layer

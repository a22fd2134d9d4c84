// SPDX-License-Identifier: Apache-2.0
//
// A round: take what other threads left in the inbox, wake what time has come for, run the ready tasks, look for what
// they wait for. With nothing ready the owner sleeps (inbox.h says why no wake-up is lost). A wake that comes too early
// stays, and ends the next sleep.
//
// A thread that made the last task ready may still be inside make_ready when that task ends and the runtime goes:
// `visitors_` keeps the queue until it is out.
#include "task/run_queue.h"

#include "base/mutant.h"
#include "base/yield.h"
#include "os/clock.h"

namespace larder::task_layer {
namespace {

// Whose queue the calling thread runs. Not to be kept over a switch (KF-34): the tasks' way to it is `current`, out of
// line.
run_queue*& this_queue() {
#ifdef LARDER_SCHEDULED
  return *reinterpret_cast<run_queue**>(base::schedule::thread_slot());
#else
  thread_local run_queue* queue = nullptr;
  return queue;
#endif
}

// How many tasks run before the owner looks for finished I/O again: enough to share the cost of the system call, few
// enough that a completion waits some microseconds only.
constexpr unsigned tasks_between_looks = 32;

}  // namespace

task_block::task_block(std::byte* stack_low) : fiber(stack_low), parker(task_parker::take()) {
  parker.owner = this;
  name = "task";
}

task_block::~task_block() {
  parker.owner = nullptr;
  task_parker::give_back(parker);
}

[[gnu::noinline]] run_queue* run_queue::current() { return this_queue(); }

void run_queue::make_ready(task_block& ready) {
  if (this_queue() == this) {
    ready_.push_back(ready);
    return;
  }
  ++visitors_;
  if (inbox_.push(ready)) wake();
  --visitors_;
}

void run_queue::wait_for_visitors() {
  if (base::is_mutant(base::mutant::visitors_forgotten)) return;
  while (visitors_ != 0) base::yield();
}

void run_queue::suspend_current() { running_->suspend(); }

void run_queue::yield_current() {
  ready_.push_back(*running_);
  suspend_current();
}

void run_queue::take_inbox() {
  for (base::stack_link* link = inbox_.take_all_in_order(); link != nullptr;) {
    base::stack_link* next = link->next;
    ready_.push_back(static_cast<task_block&>(*link));
    link = next;
  }
}

void run_queue::expire_timers() {
  if (timers_.empty()) return;
  const time_point now = os::now();
  while (!timers_.empty() && timers_.top()->deadline() <= now) timers_.pop()->expire();
}

// Runs the tasks that are ready now, up to a bound. True if it ran any.
bool run_queue::run_some() {
  bool ran = false;
  for (unsigned count = 0; count < tasks_between_looks; ++count) {
    task_block* next = ready_.pop_front();
    if (next == nullptr) break;
    ran = true;
    running_ = next;
    os::parker::set_current(&next->parker);
    next->resume();
    running_ = nullptr;
    if (next->finished()) {
      os::parker::set_current(nullptr);  // its parker goes to the next task together with its stack
      finish(*next);
    }
  }
  os::parker::set_current(nullptr);
  return ran;
}

void run_queue::sleep() {
  if (inbox_.begin_sleep() && !may_end()) wait(timers_.empty() ? no_deadline : timers_.top()->deadline());
  inbox_.end_sleep();
}

void run_queue::run() {
  this_queue() = this;
  for (;;) {
    take_inbox();
    expire_timers();
    if (run_some()) {
      look();
      continue;
    }
    if (may_end()) break;
    sleep();
  }
  this_queue() = nullptr;
}

}  // namespace larder::task_layer

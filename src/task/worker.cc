// SPDX-License-Identifier: Apache-2.0
//
// A worker's round: take what other threads left in the inbox, wake what time has come for, run the ready tasks, look
// for finished I/O. With nothing ready it sleeps in the kernel, in the same call that submits what tasks prepared.
//
// No wake-up is lost: the sleeper sets `sleeping_`, then looks at the inbox; who pushes, pushes, then looks at
// `sleeping_` (all sequentially consistent), so one of them sees the other. A wake that comes too early stays in the
// ring's event and ends the next sleep.
//
// A thread that made the last task ready may still be inside make_ready when that task ends and the runtime goes:
// `visitors_` keeps the worker until it is out.
#include "task/worker.h"

#include <thread>

#include "base/check.h"
#include "coro/innermost.h"
#include "os/clock.h"

namespace larder::task_layer {
namespace {

thread_local worker* this_worker = nullptr;

// How many tasks run before the worker looks for finished I/O again: enough to share the cost of the system call, few
// enough that a completion waits some microseconds only.
constexpr unsigned tasks_between_looks = 32;

}  // namespace

task_block::task_block(std::byte* stack_low) : fiber(stack_low), parker(task_parker::take()) { parker.owner = this; }

task_block::~task_block() {
  parker.owner = nullptr;
  task_parker::give_back(parker);
}

worker::worker(shared_state& shared, unsigned number, unsigned ring_entries)
    : shared_(shared), number_(number), ring_entries_(ring_entries) {}

worker::~worker() {
  while (visitors_ != 0) std::this_thread::yield();
}

[[gnu::noinline]] worker* worker::current() { return this_worker; }

result<void> worker::start(const char* name) {
  os::parker& starter = os::parker::current();
  base::atomic<bool> tried{false};
  std::error_code failure;
  auto thread = os::thread::start(name, [this, &starter, &tried, &failure] {
    auto made = os::ring::create(ring_entries_);
    const bool ready = static_cast<bool>(made);
    if (ready) {
      ring_ = std::move(*made);
    } else {
      failure = made.error();
    }
    os::parker& to_tell = starter;
    tried = true;  // `failure` and `ring_` before it; the captures are gone after it
    to_tell.unpark();
    if (ready) run();
  });
  if (!thread) return thread.error();
  thread_ = std::move(*thread);
  while (!tried) starter.park();
  if (failure) {
    thread_.join();
    return failure;
  }
  return {};
}

void worker::make_ready(task_block& ready) {
  if (this_worker == this) {
    ready_.push_back(ready);
    return;
  }
  ++visitors_;
  inbox_.push(ready);
  if (sleeping_.load() && sleeping_.exchange(false)) wake();
  --visitors_;
}

void worker::suspend_current() { running_->suspend(); }

void worker::yield_current() {
  ready_.push_back(*running_);
  suspend_current();
}

void worker::take_inbox() {
  for (base::stack_link* link = inbox_.take_all_in_order(); link != nullptr;) {
    base::stack_link* next = link->next;
    ready_.push_back(static_cast<task_block&>(*link));
    link = next;
  }
}

void worker::expire_timers() {
  if (timers_.empty()) return;
  const time_point now = os::now();
  while (!timers_.empty() && timers_.top()->deadline() <= now) timers_.pop()->expire();
}

// Runs the tasks that are ready now, up to a bound. True if it ran any.
bool worker::run_some() {
  bool ran = false;
  for (unsigned count = 0; count < tasks_between_looks; ++count) {
    task_block* next = ready_.pop_front();
    if (next == nullptr) break;
    ran = true;
    running_ = next;
    os::parker::set_current(&next->parker);
    coro::set_innermost_coroutine(next->innermost_coroutine);
    next->resume();
    next->innermost_coroutine = coro::innermost_coroutine();
    running_ = nullptr;
    if (next->finished()) finish(*next);
  }
  os::parker::set_current(nullptr);
  coro::set_innermost_coroutine(nullptr);
  return ran;
}

void worker::finish(task_block& ended) {
  os::parker::set_current(nullptr);  // its parker goes to the next task together with its stack
  completion* shared = ended.completion;
  ended.completion = nullptr;
  // Before the joiner is told: it must not count the task any more. This worker still runs, so the runtime stays.
  const bool last = --shared_.live == 0;
  shared_.stacks->put(&ended);
  if (shared != nullptr) {
    os::parker* joiner = shared->joiner.exchange(completion::finished());
    if (joiner != nullptr) joiner->unpark();
    shared->drop();
  }
  // The last one out, when the runtime is going, lets the other workers go too.
  if (last && shared_.stopping) {
    for (const auto& other : shared_.workers) {
      if (other.get() != this) other->wake();
    }
  }
}

void worker::sleep() {
  sleeping_ = true;
  if (!inbox_.empty() || (shared_.stopping && shared_.live == 0)) {
    sleeping_ = false;
    return;
  }
  ring_->run(true, timers_.empty() ? no_deadline : timers_.top()->deadline());
  sleeping_ = false;
}

void worker::run() {
  this_worker = this;
  for (;;) {
    take_inbox();
    expire_timers();
    if (run_some()) {
      ring_->look();
      continue;
    }
    if (shared_.stopping && shared_.live == 0) break;
    sleep();
  }
  this_worker = nullptr;
}

}  // namespace larder::task_layer

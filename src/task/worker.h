// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include <larder/object_cache.h>
#include <larder/runtime.h>

#include "base/atomic.h"
#include "base/counter.h"
#include "base/intrusive_list.h"
#include "base/pairing_heap.h"
#include "base/take_all_stack.h"
#include "coro/fiber.h"
#include "coro/stack_cache.h"
#include "os/ring.h"
#include "os/thread.h"
#include "task/task_parker.h"

namespace larder::task_layer {

// What a task and the handle to it share.
struct completion {
  // Null while the task runs; `finished` when it has ended; else the parker of who joins.
  base::atomic<os::parker*> joiner{nullptr};
  base::atomic<int> owners{0};  // the task and the handle: the last one gives this back
  std::exception_ptr thrown;    // written before `finished` is stored, read after it is seen
  object_cache<completion>* home = nullptr;

  static os::parker* finished();
  bool ended() const { return joiner.load() == finished(); }
  void drop();
};

// A task: built once with its stack, at the upper end of it.
struct task_block : coro::fiber, base::list_link<>, base::stack_link {
  explicit task_block(std::byte* stack_low);
  ~task_block();

  task_parker& parker;
  worker* home = nullptr;                   // where it runs, from its start to its end
  struct completion* completion = nullptr;  // null if nobody joins it
  void* closure = nullptr;
  void (*run)(void*) = nullptr;
  std::byte* top = nullptr;             // of the stack below the closure
  void* innermost_coroutine = nullptr;  // while it is parked
};

// What the workers of a runtime share.
struct shared_state {
  std::unique_ptr<coro::stack_cache<task_block>> stacks;
  base::atomic<std::size_t> live{0};  // tasks that exist
  base::counter started;
  base::atomic<bool> stopping{false};
  std::vector<std::unique_ptr<worker>> workers;
  runtime* owner = nullptr;
};

// A thread that runs tasks. All but `make_ready` and `wake` is for that thread, and so for its tasks.
class worker {
 public:
  worker(shared_state& shared, unsigned number, unsigned ring_entries);
  ~worker();

  // Starts the thread; returns when its ring is ready, or the error.
  result<void> start(const char* name);
  void join() { thread_.join(); }

  static worker* current();
  os::ring& ring() { return *ring_; }
  unsigned number() const { return number_; }
  runtime& owner() const { return *shared_.owner; }

  // Puts a task that is new or parked at the end of those that run next. Any thread.
  void make_ready(task_block& ready);
  void wake() { ring_->wake(); }

  // Switches from the running task back to the worker, until it is made ready.
  void suspend_current();
  void add_timer(task_parker& waiting) { timers_.push(waiting); }
  void remove_timer(task_parker& waiting) { timers_.remove(waiting); }
  // Lets the others run before the task that calls.
  void yield_current();

 private:
  void run();
  void take_inbox();
  void expire_timers();
  bool run_some();
  void finish(task_block& ended);
  void sleep();

  shared_state& shared_;
  const unsigned number_;
  const unsigned ring_entries_;
  std::unique_ptr<os::ring> ring_;
  os::thread thread_;
  task_block* running_ = nullptr;
  base::intrusive_list<task_block> ready_;
  base::pairing_heap<task_parker, earlier_deadline> timers_;
  base::take_all_stack inbox_;          // from other threads
  base::atomic<bool> sleeping_{false};  // in the kernel, or about to be: a push to the inbox must wake
  base::atomic<unsigned> visitors_{0};  // other threads inside make_ready: the worker outlives them
};

}  // namespace larder::task_layer

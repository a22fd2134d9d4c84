// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include <larder/units.h>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "base/pairing_heap.h"
#include "base/take_all_stack.h"
#include "coro/fiber.h"
#include "task/inbox.h"
#include "task/task_parker.h"

namespace larder::task_layer {

struct completion;
class run_queue;

// A task: built once with its stack, at the upper end of it.
struct task_block : coro::fiber, base::list_link<>, base::stack_link {
  explicit task_block(std::byte* stack_low);
  ~task_block();

  task_parker& parker;
  run_queue* home = nullptr;                // where it runs, from its start to its end
  struct completion* completion = nullptr;  // null if nobody joins it
  void* closure = nullptr;
  void (*run)(void*) = nullptr;
  std::byte* top = nullptr;  // of the stack below the closure
};

// The tasks of one thread, its owner: which run next, which wait for a time, which others have made ready. What the
// owner sleeps in is its heir's to say. All but `make_ready` is for the owner, and so for its tasks.
class run_queue {
 public:
  run_queue(const run_queue&) = delete;
  run_queue& operator=(const run_queue&) = delete;

  // The queue that the calling thread runs, or null.
  static run_queue* current();

  // Puts a task that is new or parked at the end of those that run next. Any thread.
  void make_ready(task_block& ready);

  // Switches from the running task back to the owner, until it is made ready.
  void suspend_current();
  // Lets the others run before the task that calls.
  void yield_current();
  void add_timer(task_parker& waiting) { timers_.push(waiting); }
  void remove_timer(task_parker& waiting) { timers_.remove(waiting); }

 protected:
  run_queue() = default;
  ~run_queue() = default;

  // Runs tasks until may_end() says so while none is ready. The calling thread becomes the owner.
  void run();
  // Returns once no other thread is inside make_ready: the heir calls it before it goes.
  void wait_for_visitors();

  // Sleeps until a wake, the deadline or anything that the tasks wait for; what has come is dealt with.
  virtual void wait(time_point deadline) = 0;
  // The same without sleeping.
  virtual void look() = 0;
  // Ends the owner's wait, this one or the next. Any thread.
  virtual void wake() = 0;
  virtual bool may_end() = 0;
  // The task is the heir's again.
  virtual void finish(task_block& ended) = 0;

 private:
  void take_inbox();
  void expire_timers();
  bool run_some();
  void sleep();

  task_block* running_ = nullptr;
  base::intrusive_list<task_block> ready_;
  base::pairing_heap<task_parker, earlier_deadline> timers_;
  inbox inbox_;                         // from other threads
  base::atomic<unsigned> visitors_{0};  // other threads inside make_ready
};

}  // namespace larder::task_layer

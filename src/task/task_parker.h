// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "base/atomic.h"
#include "base/pairing_heap.h"
#include "os/parker.h"
#include "task/task_name.h"

namespace larder::task_layer {

struct shared_state;
struct task_block;
class run_queue;

// Where a task waits. It belongs to a task for as long as that task's stack is built, and then goes to the next: it is
// never freed, so a late unpark finds a parker that is not parked, and leaves a token that costs its owner a look.
class task_parker final : public os::parker, public base::heap_link {
 public:
  static task_parker& take();
  // From now on for_each_owned shows it: once the task is built.
  void set_owner(task_block& whole);
  static void give_back(task_parker& unused);
  // Calls `show` for the parker of each task that is built; none is built or destroyed meanwhile.
  static void for_each_owned(const std::function<void(task_parker&)>& show);

  // On the task's own worker, by the task.
  void park() override;
  bool park_until(time_point wake) override;
  void unpark() override;
  // Acquire: what is looked at next is not older.
  bool is_parked() const override { return state_.load(base::memory_order_acquire) == parked; }

  // Called by the worker once the task has left its stack to park. False if a token has come: the task goes on. After
  // true, the task is whose unpark comes.
  bool say_parked();
  // Called by the worker when the deadline has come; takes the place of an unpark.
  void expire();
  time_point deadline() const { return deadline_; }

  task_block* owner = nullptr;  // changed with the pool's mutex held, while the task does not run

  // What reports read of the task. It is here because they may read it of one that just ends, whose block is nobody's
  // to touch then.
  //
  // Where it runs, or ran last, or is to run first. Relaxed everywhere: whoever acts upon it has been given the task,
  // and reports only look.
  base::passive_atomic<run_queue*> home{nullptr};
  // The runtime that it is a task of, from its start to its end.
  base::passive_atomic<const shared_state*> lives_in{nullptr};
  task_name label;

 private:
  static constexpr unsigned empty = 0;
  static constexpr unsigned token = 1;
  static constexpr unsigned parked = 2;

  base::atomic<unsigned> state_{empty};
  time_point deadline_{};               // the worker's thread only, like the heap link
  bool in_timers_ = false;              // the worker's thread only
  bool expired_ = false;                // the worker's thread only
  task_parker* next_unused_ = nullptr;  // guarded by the pool's mutex
  task_parker* next_made_ = nullptr;    // guarded by the pool's mutex
};

struct earlier_deadline {
  bool operator()(const task_parker& a, const task_parker& b) const { return a.deadline() < b.deadline(); }
};

}  // namespace larder::task_layer

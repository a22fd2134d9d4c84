// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <larder/units.h>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "base/pairing_heap.h"
#include "base/take_all_stack.h"
#include "coro/fiber.h"
#include "task/inbox.h"
#include "task/stealable_ring.h"
#include "task/task_parker.h"

namespace larder::task_layer {

struct completion;
class run_queue;

// A task: built once with its stack, at the upper end of it.
struct task_block : coro::fiber, base::list_link<>, base::stack_link {
  explicit task_block(std::byte* stack_low);
  ~task_block();

  task_parker& parker;
  run_queue* home() const { return parker.home.load(base::memory_order_relaxed); }
  bool pinned = false;                      // it stays with its home from its start to its end
  bool bound = false;                       // it stays with its home for now; pinned ones always
  bool yields = false;                      // why it suspended itself: to let others run, else to park
  struct completion* completion = nullptr;  // null if nobody joins it
  void* closure = nullptr;
  void (*run)(void*) = nullptr;
  std::byte* top = nullptr;  // of the stack below the closure
};

// While it exists, the calling task comes back to the worker that it is on whenever it is made ready: somebody there
// knows it. Nothing outside of a task.
class stay_here {
 public:
  stay_here();
  ~stay_here();
  stay_here(const stay_here&) = delete;
  stay_here& operator=(const stay_here&) = delete;

 private:
  task_block* const staying_;
  bool before_ = false;
};

// Queues whose owners help each other. It is whole before the first of them runs, and goes after the last.
struct queue_group {
  std::vector<run_queue*> queues;
  base::atomic<unsigned> idle{0};       // owners that sleep, or are about to
  base::atomic<bool> searching{false};  // one of those without work looks for some
  // How long a task that waits alone is left to its worker, which as a rule is about to run it.
  std::chrono::nanoseconds alone = std::chrono::microseconds(5);
  // How long an owner looks around before it sleeps, at most.
  std::chrono::nanoseconds search_longest = std::chrono::microseconds(20);
  // How long the one that searches sleeps at a time, while others work.
  std::chrono::nanoseconds nap_shortest = std::chrono::microseconds(200);
  std::chrono::nanoseconds nap_longest = std::chrono::milliseconds(4);
};

// The tasks of one thread, its owner: which run next, which wait for a time, which others have made ready. What the
// owner sleeps in is its heir's to say. All but `make_ready` is for the owner, and so for its tasks.
class run_queue {
 public:
  run_queue(const run_queue&) = delete;
  run_queue& operator=(const run_queue&) = delete;

  // The queue that the calling thread runs, or null.
  static run_queue* current();

  // Puts a task that is new or parked at the end of those that run next: of the caller's queue if the task may run
  // there, else of its home. Any thread.
  static void make_ready(task_block& ready);

  // The task that runs. Any thread may look. Relaxed: it is the owner's, and reports follow it nowhere.
  task_block* running() const { return running_.load(base::memory_order_relaxed); }
  // Switches from the running task back to the owner, until it is made ready. Its parker says that it parks.
  void suspend_current();
  // Lets the others run before the task that calls.
  void yield_current();
  void add_timer(task_parker& waiting) { timers_.push(waiting); }
  void remove_timer(task_parker& waiting) { timers_.remove(waiting); }

 protected:
  run_queue();
  ~run_queue();

  // Before any of the group runs, and once all are in it. Throws std::bad_alloc.
  void join_group(queue_group& group);
  // Runs tasks until may_end() says so while none is ready. The calling thread becomes the owner.
  void run();
  // Returns once no other thread is inside make_ready for this queue. One that is there may touch any queue of the
  // group: the heirs call it for all before one of them goes.
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
  static constexpr std::size_t ring_capacity = 256;
  struct observation;  // of another queue
  enum class departure : std::uint8_t { ended, yielded, parked };

  void push(task_block& last);
  void tell_idle();
  task_block* next();
  bool has_ready() const;
  void take_inbox();
  void expire_timers();
  time_point next_timer() const;
  static departure resume(task_block& one);
  bool run_some();

  void rest();
  void sleep();
  bool search();
  bool steal();
  bool steal_from(run_queue& victim, observation& seen);
  void take_search();
  bool leave_search();
  void stop_searching();
  bool appoint();
  static void call_searcher(queue_group& group, const run_queue* caller);

  base::passive_atomic<task_block*> running_{nullptr};
  base::intrusive_list<task_block> bound_;          // those that stay here; without a group all
  stealable_ring<task_block, ring_capacity> ring_;  // those that others may take,
  base::intrusive_list<task_block> overflow_;       // and what had no room there, later than all of it
  bool bound_next_ = false;                         // the two kinds take turns
  base::pairing_heap<task_parker, earlier_deadline> timers_;
  inbox inbox_;                                    // from other threads
  base::passive_atomic<std::uint64_t> rounds_{0};  // begun: who counts on it sees that the owner is not busy
  base::atomic<unsigned> visitors_{0};             // other threads inside make_ready

  queue_group* group_ = nullptr;                 // null: nobody to help
  std::unique_ptr<observation[]> observations_;  // of each queue of the group
  base::atomic<bool> appointed_{false};          // another owner has handed the search to this one
  bool searching_ = false;                       // this owner is the group's that searches
  bool told_ = false;                            // because there was something to be found
  std::size_t first_victim_ = 0;                 // of the next look at the others
  std::chrono::nanoseconds search_limit_{0};     // adapts: how long to look around before a sleep
  std::chrono::nanoseconds nap_{0};              // adapts: while nothing is found
};

}  // namespace larder::task_layer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

class runtime;

class task_group;
struct task_state;

namespace task_layer {
struct completion;  // what a task and its handle share
class group_core;
}  // namespace task_layer

// A task that can be waited for. Movable; the destructor waits like `join`, but swallows what the task threw, and is
// not cut short if the caller is cancelled.
class LARDER_API task {
 public:
  // Thrown in a task that was cancelled, by a call that would wait. Let it pass: it unwinds the task's stack.
  struct cancelled {};

  task() = default;
  task(task&& other) noexcept : completion_(std::exchange(other.completion_, nullptr)) {}
  task& operator=(task&& other) noexcept;
  ~task();

  // Whether there is a task to wait for: not after join, detach or a move.
  bool joinable() const { return completion_ != nullptr; }
  // Waits until it has ended; throws what it threw. Then it is not joinable any more. True if it ran to its end, false
  // if `cancelled` ended it. Parks the calling task or thread. Throws `cancelled` if the caller is a task that is
  // cancelled while it waits: then it can be joined still. Dies if not joinable.
  bool join();
  // Asks it to stop: its wait in progress, or else its next, throws `cancelled`; only waits that say nothing else can
  // be cut short so. Each call ends one wait at most, so what cleans up may wait again. Returns at once; the task ends
  // in its own time, or not at all. Nothing if it has ended. Dies if not joinable.
  //
  // Waits that are not cut short: those for memory and for file operations, `mutex::lock` and `shared_mutex::lock`, of
  // which much code relies on that they do not fail, `blocking`, and the destructors of `task` and `task_group`.
  void cancel();
  // Lets it run on its own; what it throws, or has thrown, then ends the process, as it would from a thread.
  void detach();
  // Whether it has ended; never blocks.
  bool done() const;

 private:
  friend class runtime;
  explicit task(task_layer::completion* shared) : completion_(shared) {}
  task_layer::completion* completion_ = nullptr;
};

// Runs tasks — functions on cached stacks — on a few worker threads, each with an io_uring. A task that waits (for I/O,
// time, a mutex, memory) parks: its worker goes on with the next. Tasks are not preempted.
//
// A task that is woken runs next on the worker that woke it; a worker without work takes half of what waits at another
// (work stealing, as in Cilk). So a task may go on in another thread after any call that may park it: it must not keep
// the address of a thread-local variable over one, `errno` included. One that was placed on a worker stays there.
class LARDER_API runtime {
 public:
  struct options {
    // Threads; 0 takes one for each CPU that this thread may run on.
    unsigned workers = 0;
    // Of each task: at least so much, rounded up to whole pages, 16 KiB at the least.
    bytes stack_size = bytes{64U << 10};
    // Stacks that are there from the start and always will be; more are made on need.
    std::size_t stacks_reserved = 0;
    // The most tasks that can exist at once.
    std::size_t task_limit = 1U << 20;
    // What stacks and rings are charged to; null for the process budget. Outlives the runtime.
    memory_budget* budget = nullptr;
    // Operations that a worker can prepare before it tells the kernel; more can be under way.
    unsigned ring_entries = 256;
    // The most threads that make blocking calls for tasks (blocking.h), 1 to 4096; there are none without such calls.
    unsigned blocking_threads_max = 64;
  };

  // Starts the workers. Errors: ENOSYS or EPERM where io_uring is missing or not allowed, ENOMEM within the budget,
  // EAGAIN when the system has no more threads; then nothing is left behind.
  static result<std::unique_ptr<runtime>> create(std::string_view name, options chosen);
  // Waits until all tasks have ended, detached ones too, then joins the workers. Not on one of its own tasks. The
  // handles of its tasks are joined, detached or destroyed before.
  ~runtime();
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  // Starts `body` as a task: at the worker of the calling task if it is one of this runtime's, else at the next in
  // turn. Waits (parks) for a stack while `task_limit` or the budget has no room for one. Throws std::bad_alloc if
  // there can never be, and at once if no guard can be had for its stack (stack_guard_share). Any thread.
  template <typename Body>
  [[nodiscard]] task spawn(Body&& body) {
    return spawn_stored({.joinable = true}, std::forward<Body>(body)).value();
  }
  // On a worker of the caller's choice, 0 to workers() - 1, where it stays.
  template <typename Body>
  [[nodiscard]] task spawn_on(unsigned worker, Body&& body) {
    return spawn_stored({.joinable = true, .worker = worker}, std::forward<Body>(body)).value();
  }
  // Without a way to wait for its end.
  template <typename Body>
  void spawn_detached(Body&& body) {
    (void)spawn_stored({}, std::forward<Body>(body));
  }
  template <typename Body>
  void spawn_detached_on(unsigned worker, Body&& body) {
    (void)spawn_stored({.worker = worker}, std::forward<Body>(body));
  }
  // Starts it only if a stack is there at once: false if not. Never waits.
  template <typename Body>
  [[nodiscard]] bool try_spawn_detached(Body&& body) {
    return spawn_stored({.deadline = time_point::min()}, std::forward<Body>(body)).has_value();
  }
  template <typename Body>
  [[nodiscard]] bool try_spawn_detached_on(unsigned worker, Body&& body) {
    return spawn_stored({.worker = worker, .deadline = time_point::min()}, std::forward<Body>(body)).has_value();
  }
  // Spawns and joins. If the caller is cancelled meanwhile, so is the task, and `task::cancelled` is thrown once it has
  // ended.
  template <typename Body>
  void run(Body&& body) {
    task started = spawn(std::forward<Body>(body));
    try {
      started.join();
    } catch (const task::cancelled&) {
      if (started.joinable()) started.cancel();
      throw;
    }
  }

  unsigned workers() const;
  // The runtime that runs the calling task, or null; and the number of its worker.
  static runtime* current();
  static unsigned current_worker();

  // The most that any of its tasks has used of its stack so far, to the page, as far as that was seen: as
  // coroutine::stack_high_water has it.
  bytes stack_high_water();

  // Tasks that exist now; those that were started, ever.
  std::size_t tasks() const;
  std::uint64_t tasks_started() const;

  // Shows every task that exists, in no order: its name, where it is, what it waits for (task_report.h). Any thread.
  // Tasks go on meanwhile: each is shown as it was at some moment of the call. Starts of tasks that need a new stack
  // may wait for it, some hundred ns for each task. Throws std::bad_alloc, and what `show` throws.
  void for_each_task(const std::function<void(const task_state&)>& show) const;
  // The same as text, for people: tasks and threads that wait for each other in a circle come first, then who waits,
  // the longest first, then who does not. Of each kind, `tasks_max` are listed and the others counted.
  std::string report(std::size_t tasks_max = 1000) const;

  static constexpr std::size_t closure_size_max = 1024;

 private:
  friend class task_group;
  static constexpr unsigned any_worker = ~0U;
  struct state;
  struct start_options {
    bool joinable = false;
    unsigned worker = any_worker;
    time_point deadline = no_deadline;
    task_layer::group_core* group = nullptr;
  };
  struct launch {
    void* block = nullptr;  // the task, or null when there was no room in time
    void* closure_place = nullptr;
  };
  explicit runtime(std::unique_ptr<state> ready);
  launch prepare(const start_options& chosen, std::size_t size, std::size_t alignment);
  task_layer::completion* begin(launch prepared, void* closure, void (*body)(void*));

  template <typename Body>
  std::optional<task> spawn_stored(const start_options& chosen, Body&& body) {
    using stored = std::decay_t<Body>;
    static_assert(sizeof(stored) <= closure_size_max, "a closure this large belongs on the heap");
    static_assert(std::is_nothrow_constructible_v<stored, Body&&>, "a task's closure is moved in without throwing");
    const launch prepared = prepare(chosen, sizeof(stored), alignof(stored));
    if (prepared.block == nullptr) return std::nullopt;
    auto* closure = new (prepared.closure_place) stored(std::forward<Body>(body));
    return task(begin(prepared, closure, [](void* argument) {
      struct destroyer {
        stored* object;
        ~destroyer() { object->~stored(); }
      } owned{static_cast<stored*>(argument)};
      (*owned.object)();
    }));
  }

  const std::unique_ptr<state> state_;
};

namespace this_task {

// Whether the caller runs on a task.
LARDER_API bool inside();
// Lets the worker's other tasks run; gives up the CPU on a plain thread. Throws task::cancelled if the task was.
LARDER_API void yield();
// Parks the task or sleeps the thread. Can be cancelled.
LARDER_API void sleep_until(time_point wake);
inline void sleep_for(std::chrono::nanoseconds duration) { sleep_until(std::chrono::steady_clock::now() + duration); }

// What reports call the calling task, until it ends: `text` is copied, up to its 31st byte. "task" before. Nothing on a
// plain thread.
LARDER_API void set_name(std::string_view text);
// Valid until the next set_name. Empty on a plain thread.
LARDER_API std::string_view name();

// Whether the calling task was ever asked to stop; false on a plain thread.
LARDER_API bool cancel_requested();
// For what computes without waiting: throws task::cancelled if the calling task was asked to stop and no wait has ended
// for it yet.
LARDER_API void throw_if_cancelled();
// While it exists, no wait of the calling task ends because it is cancelled: such a request waits for the end of the
// scope. They nest. Nothing on a plain thread.
class LARDER_API cancellation_shield {
 public:
  cancellation_shield();
  ~cancellation_shield();
  cancellation_shield(const cancellation_shield&) = delete;
  cancellation_shield& operator=(const cancellation_shield&) = delete;
};

}  // namespace this_task

}  // namespace larder

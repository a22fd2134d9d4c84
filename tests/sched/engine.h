// SPDX-License-Identifier: Apache-2.0
//
// Runs one schedule. The logical threads are flows on stacks of their own; one runs at a time. Each hook that the code
// under test calls (base/schedule.h, the futex, the sequences) says what the thread will do next and asks `go_on` who
// may: the engine lists what can happen, a strategy chooses, and the chosen thread executes its operation and all its
// private code up to its next one. So every thread that is not running stands before an operation that is known.
//
// Set-up and audit run on a flow of their own, so that a check that fails in them ends the schedule as it does in a
// thread. A schedule that has failed is left as it stands: its flows are never resumed, its stacks and state never
// freed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/lock_rank.h"
#include "os/cpu_sequence.h"
#include "os/thread_parker.h"
#include "tests/sched/decision.h"
#include "tests/sched/flow.h"
#include "tests/sched/scenario.h"
#include "tests/sched/store_buffer.h"

namespace larder::sched {

// What the simulated system does of its own accord, and when a schedule has gone on for too long.
struct system_settings {
  unsigned steps_max = 10'000;  // more is a livelock
  unsigned spurious_wakes = 0;  // the most of each in one schedule
  unsigned migrations = 0;
  unsigned restarts = 0;
  unsigned store_delays = 0;  // stores that stay in their thread's buffer, as x86's may (TSO)
  unsigned cpus = 4;
  os::sequence_mode sequences = os::sequence_mode::sharded;
};

// How one schedule went.
struct outcome {
  bool failed = false;
  std::string message;
  std::vector<action> schedule;  // what was chosen wherever there was a choice
  unsigned steps = 0;
  std::vector<std::string> trace;  // if asked for
};

using scenario_factory = std::function<std::unique_ptr<scenario>()>;

class engine {
 public:
  engine(scenario_factory factory, const system_settings& chosen);
  ~engine();
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;

  const outcome& run(strategy& decides, bool traced);

  // Null outside of a schedule.
  static engine* running();

  // What follows is called from within a schedule.
  void point(const void* object, base::schedule::access how);
  void yield();
  // What base::schedule's load and weak_store say.
  const void* own_store(const void* object) const;
  bool keeps_store(void* object, const void* value, std::size_t size);
  void flush_own_stores() { threads_[current_].buffer.flush(); }
  [[noreturn]] void fail(std::string message);
  // The current thread sleeps until a wake of `word`. False if the deadline passed.
  bool sleep(const void* word, time_point deadline);
  void wake_one(const void* word);
  // One of `count` equal possibilities.
  unsigned pick(unsigned count);
  // The current thread's restartable sequence: from `begin` on, `intact` until the system interferes.
  void begin_sequence();
  bool sequence_intact();
  void end_sequence();
  void break_sequences();
  unsigned cpu() const;
  void move_to_cpu(unsigned cpu);
  time_point now() const { return clock_; }
  const system_settings& settings() const { return settings_; }
  int* locks_held();
  void** thread_slot();
  os::parker& parker();
  void set_parker(os::parker* replacement);

 private:
  struct logical_thread {
    void reset();

    flow own;
    engine* home = nullptr;
    const scenario::body* body = nullptr;
    operation next;
    bool ended = false;
    bool asleep = false;
    bool woken = false;  // goes on without an operation, so its next one needs no choice of its own
    bool yielded = false;
    bool timed_out = false;
    bool in_sequence = false;
    bool interrupted = false;  // its sequence was
    time_point deadline{};
    std::optional<os::thread_parker> parker;
    os::parker* replaced_parker = nullptr;
    std::array<int, base::lock_ranks> locks{};
    void* slot = nullptr;
    bool delays_store = false;  // the one that it executes now
    store_buffer buffer;
  };
  static constexpr unsigned outside = threads_max;  // set-up, audit: the last of threads_

  static void begin_outside(void* self);
  static void begin_thread(void* thread);
  void set_up_and_audit();
  void start_threads();
  void go_on();
  void list_options(unsigned from);
  action decide(unsigned from);
  void list_interference();
  void apply(const action& chosen);
  [[noreturn]] void fail_for_deadlock();
  bool can_run(const logical_thread& thread) const;
  void note(const logical_thread& thread, const char* what, const void* object);
  std::string name_of(const void* object);

  const scenario_factory factory_;
  const system_settings settings_;
  flow caller_;
  std::array<logical_thread, threads_max + 1> threads_;
  unsigned count_ = 0;  // of threads
  unsigned current_ = outside;
  bool starting_ = false;
  std::unique_ptr<scenario> scenario_;
  strategy* decides_ = nullptr;
  decision open_;
  outcome outcome_;
  bool traced_ = false;
  std::vector<const void*> unnamed_;  // objects in the order in which the trace met them
  time_point clock_{};
  unsigned spurious_left_ = 0;
  unsigned migrations_left_ = 0;
  unsigned restarts_left_ = 0;
  unsigned delays_left_ = 0;
};

}  // namespace larder::sched

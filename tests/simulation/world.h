// SPDX-License-Identifier: Apache-2.0
//
// A world of one thread: actors with a virtual clock, in which everything that happens follows from a seed.
//
// An actor is a flow of control on a stack of its own, with a parker (os/parker.h) as a thread or a task has. One runs
// at a time. It is left where it waits: parked, for a lock, for the disk, asleep; where it yields; and, as the story
// says how often, before any operation on shared state, for the code under test is the scheduled build
// (base/schedule.h). Who goes on is drawn from those that can. Time stands still while they run and goes to the next
// event when all wait, or now and then before.
//
// A world fails when a check or a law does, when all wait and nothing is to come (a deadlock), and when nobody
// finishes anything for too long, in steps or in virtual time (a livelock). Then it stops where it stands for good: the
// actors' stacks and all that they refer to are left behind.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/lock_rank.h"
#include "base/schedule.h"
#include "os/parker.h"
#include "tests/sched/flow.h"
#include "tests/simulation/random_source.h"

namespace larder::simulation {

class world;

class actor final : public os::parker {
 public:
  actor(world& whole, std::string chosen_name, std::function<void()> chosen_body);
  ~actor() = default;

  void park() override { park_until(no_deadline); }
  bool park_until(time_point deadline) override;
  void unpark() override;
  bool is_parked() const override { return now_ == condition::parked && !token_; }

  const std::string name;
  const unsigned number;
  bool slow = false;       // is chosen less often
  bool calm = false;       // is left only where it waits
  const char* doing = "";  // for reports: an operation that it is in

 private:
  friend class world;
  enum class condition : unsigned char { ready, running, parked, at_lock, blocked, yielded, ended };

  world& world_;
  const std::function<void()> body_;
  std::unique_ptr<sched::flow> flow_;
  condition now_ = condition::ready;
  bool token_ = false;
  bool in_time_ = true;
  std::uint64_t waits_ = 0;  // tells a deadline of this wait from an old one's
  const void* lock_ = nullptr;
  std::array<int, base::lock_ranks> locks_held_{};
  void* thread_slot_ = nullptr;
};

struct world_settings {
  std::uint64_t seed = 1;
  std::uint64_t steps_between_switches = 0;  // on average; 0: an actor is left only where it waits
  bool time_presses = false;                 // time may pass though somebody could go on
  bool stray_tokens = false;                 // a parker may wake for no reason, as its contract says
  std::uint64_t steps_without_progress_max = 6'000'000;
  std::chrono::nanoseconds time_without_progress_max = std::chrono::seconds(600);
};

class world {
 public:
  explicit world(const world_settings& chosen);
  ~world();
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  // The one that runs now, and its actor that runs now; null outside of an actor.
  static world* of_now();
  static actor* actor_of_now();

  // Adds an actor; before or during `run`.
  actor& start(std::string name, std::function<void()> body);
  // Until every actor has ended, or the world has failed.
  void run();
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }

  // What follows is for actors, and for events where that makes sense.
  time_point now() const { return now_; }
  random_source& random() { return random_; }
  // A moment in the order of everything that happens: each call gives a later one.
  std::uint64_t moment() { return ++moments_; }
  // Calls `happens` at that time, outside of any actor.
  void at(time_point when, std::function<void()> happens);
  // Waits until `wake`; may be for nothing but that.
  void block();
  void wake(actor& blocked);
  void sleep(std::chrono::nanoseconds duration);
  void yield();
  // Somebody finished something.
  void note_progress();
  // Ends the world. Comes back only outside of an actor.
  [[gnu::format(printf, 2, 3)]] void fail(const char* format, ...);
  void require(bool condition, const char* what) {
    if (!condition) [[unlikely]]
      fail("%s", what);
  }
  // Checked between any two switches, outside of any actor: takes no lock. Fails by `fail`.
  void add_law(std::function<void()> check) { laws_.push_back(std::move(check)); }

  // Remembers an event for the report of a failure, and for the fingerprint. `what` is a literal.
  void trace(const char* what, std::uint64_t first = 0, std::uint64_t second = 0, std::uint64_t third = 0);
  // The last events, one a line.
  std::string last_events() const;
  // A number that follows from everything that was traced.
  std::uint64_t fingerprint() const { return fingerprint_; }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t switches() const { return switches_; }

  // For the hooks of the scheduled build.
  void point(const void* object, base::schedule::access how);
  int* locks_held();
  void** thread_slot();

 private:
  friend class actor;
  struct event {
    time_point when;
    std::uint64_t order;
    std::function<void()> happens;
  };
  struct trace_entry {
    time_point when;
    const actor* who;
    const char* what;
    std::array<std::uint64_t, 3> figures;
  };

  static void begin_actor(void* started);
  void make_ready(actor& one);
  // Leaves the running actor, whose condition says why.
  void leave();
  void step();
  void wait_for_lock(const void* lock);
  void fire_next_event();
  actor* choose();
  void stray_token();
  void check_progress();
  std::string describe_actors();

  const world_settings settings_;
  random_source random_;
  time_point now_{};
  std::uint64_t moments_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t switches_ = 0;
  std::uint64_t steps_to_switch_ = 0;
  std::uint64_t progress_steps_ = 0;
  time_point progress_time_{};
  std::uint64_t events_made_ = 0;
  std::deque<actor> actors_;
  std::size_t living_ = 0;
  std::vector<actor*> ready_;
  std::vector<actor*> yielded_;
  std::vector<actor*> at_locks_;
  std::vector<event> events_;  // a heap
  std::vector<std::function<void()>> laws_;
  actor* running_ = nullptr;
  sched::flow outside_;
  std::string failure_;
  std::vector<trace_entry> traced_;  // a ring
  std::uint64_t traced_count_ = 0;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace larder::simulation

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "base/check.h"
#include "base/schedule.h"

namespace larder::sched {

constexpr unsigned threads_max = 8;

// What can happen next.
struct action {
  enum class kind : std::uint8_t {
    run,       // the thread executes its next operation
    expire,    // the deadline that the thread waits for passes, and it runs
    spurious,  // the thread wakes up for no reason
    migrate,   // the system moves the thread to CPU `value`, where it runs
    restart,   // the system interferes with the thread's sequence (a signal), and it runs
    delay,     // the thread executes its next operation, a store, which stays in its store buffer
    flush,     // the oldest store in the thread's buffer reaches memory
    pick,      // no thread: the `value`-th of some equal possibilities
  };
  std::uint8_t thread = 0;
  kind what = kind::run;
  std::uint8_t value = 0;

  bool runs_thread() const { return what != kind::pick && what != kind::flush; }
  friend bool operator==(const action&, const action&) = default;
};

// The next operation of a thread, as far as it is known before it is executed.
struct operation {
  const void* object = nullptr;
  base::schedule::access how = base::schedule::access::fence;
  std::uint8_t cpu = 0;        // the virtual CPU that its thread is on
  bool on_shared_cpu = false;  // sequences are in use, so whoever else runs on that CPU matters

  bool writes() const { return how != base::schedule::access::load; }
};

inline bool is_sequence(base::schedule::access how) {
  return how == base::schedule::access::sequence || how == base::schedule::access::sequence_store;
}

// False only if the two may be executed in either order with the same result.
inline bool dependent(const operation& a, const operation& b) {
  using base::schedule::access;
  if (a.how == access::fence || b.how == access::fence) return true;
  if (a.on_shared_cpu && a.cpu == b.cpu) return true;
  return a.object == b.object && (a.writes() || b.writes());
}

// A moment at which one or more things can happen.
struct decision {
  static constexpr unsigned options_max = 4 * threads_max;
  std::array<action, options_max> options;
  unsigned count = 0;
  // The thread that ran can go on: options[0] lets it, other threads' runs preempt it.
  bool may_continue = false;
  // Of each thread that has not ended.
  std::array<const operation*, threads_max> next{};

  void add(action possible) {
    LARDER_CHECK(count < options_max, "more than %u things can happen at once", options_max);
    options[count++] = possible;
  }
  bool preempts(unsigned option) const {
    const action& chosen = options[option];
    return may_continue && chosen.runs_thread() && chosen.thread != options[0].thread;
  }
};

// Who decides. One schedule after the other is run under it.
class strategy {
 public:
  virtual ~strategy() = default;
  strategy(const strategy&) = delete;
  strategy& operator=(const strategy&) = delete;
  // An index into `open.options`, of which there is at least one.
  virtual unsigned choose(const decision& open) = 0;

 protected:
  strategy() = default;
};

}  // namespace larder::sched

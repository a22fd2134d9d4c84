// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>

#include <larder/units.h>

#include "os/cancellation.h"
#include "os/wait_note.h"

namespace larder::os {

// Whoever runs: a thread, or a coroutine that a runtime put in its place. What waits in this library waits here, so
// that the same budget, cache or page parks a task without its worker and a thread without a runtime.
//
// A parker holds at most one token. `unpark` leaves it; `park` takes it, and sleeps until there is one. A token may be
// left over from an earlier wait, so every caller looks again at what it waits for, in a loop.
//
// Parkers are never freed while the process lives (threads' are recycled, tasks' are cached objects), so an unpark that
// comes late finds one, and costs its new owner a look.
class parker {
 public:
  // The parker of the thread or task that calls. Out of line: its address must not be kept over a switch (KF-34).
  static parker& current();
  // Puts `mine` in the place of the thread's own parker, or that back for null. A runtime calls it around each switch.
  static void set_current(parker* mine);
  // Around fork() (fork.cc): no thread takes or leaves a parker meanwhile.
  static void lock_pool_for_fork();
  static void unlock_pool_after_fork();

  virtual void park() = 0;
  // False if the deadline passed without a token.
  virtual bool park_until(time_point deadline) = 0;
  // Any thread, also before the park that it is meant for. Takes no ranked lock.
  virtual void unpark() = 0;

  // Whether its owner sleeps in a park, and nobody has unparked it. Any thread.
  virtual bool is_parked() const = 0;

  // What its owner waits for (waiting.h).
  wait_note note;

  // True while its owner runs a reclaimer: then a wait for memory is a programming error (KF-57). Owner only.
  bool reclaiming = false;

  // Where a request to stop is found, if whoever runs can get one; set before it runs. Owner only.
  cancellation* cancel = nullptr;
  // How many scopes in progress keep such requests for later. Owner only.
  unsigned cancellation_shields = 0;
  // Whether a wait that can be cancelled is to end with an exception: not while another unwinds the stack.
  bool must_cancel() const {
    return cancel != nullptr && cancel->is_pending() && cancellation_shields == 0 && std::uncaught_exceptions() == 0;
  }

 protected:
  parker() = default;
  ~parker() = default;
  parker(const parker&) = delete;
  parker& operator=(const parker&) = delete;
};

}  // namespace larder::os

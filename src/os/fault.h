// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/atomic.h"

namespace larder::os {

// The system calls of this folder, as a test names them to make one fail.
enum class call : std::uint8_t {
  map,
  guard,  // a guard marker; EINVAL: as where the kernel has none
  protect,
  advise,
  residency,
  open,
  stat,
  read,
  write,
  sync,
  allocate,
  socket,
  bind,
  listen,
  connect,
  accept,
  receive,
  send,
  event,
  ring_setup,
  ring_enter,  // EINTR, EAGAIN or EBUSY: the ring looks again
  thread_create,
  membarrier,
  signal,  // handlers and stacks for them
  any,     // in a plan: whichever comes n-th
};

namespace fault {

// From now on the `nth` (1, 2, …) use of `which` fails with `error_number`; with `from_then_on`, every later one too.
// One plan at a time; a test arms it, and `disarm` ends it. Releasing calls (munmap, close, unlink) never fail.
void arm(call which, std::uint64_t nth, int error_number, bool from_then_on = false);
void disarm();
// How many uses the armed plan has counted, and whether it has made any of them fail.
std::uint64_t uses();
bool fired();

extern base::passive_atomic<bool> armed;
bool count_use(call which);

// Each wrapper asks this first: true means that the call shall fail, and errno is set. One relaxed load when nothing is
// armed. While threads run, a change of plan takes effect soon, not at a certain use.
inline bool fires(call which) { return armed.load(base::memory_order_relaxed) && count_use(which); }

}  // namespace fault
}  // namespace larder::os

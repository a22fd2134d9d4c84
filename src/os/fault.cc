// SPDX-License-Identifier: Apache-2.0
#include "os/fault.h"

#include <cerrno>

#include "base/check.h"

namespace larder::os::fault {

base::passive_atomic<bool> armed{false};

namespace {

// The plan; written before `armed` is set, read only while it is. Atomic, so that a test may change it while threads
// run.
base::passive_atomic<call> planned_call{call::any};
base::passive_atomic<std::uint64_t> planned_use{0};
base::passive_atomic<int> planned_error{0};
base::passive_atomic<bool> planned_for_ever{false};
base::passive_atomic<std::uint64_t> use_count{0};
base::passive_atomic<bool> has_fired{false};

}  // namespace

void arm(call which, std::uint64_t nth, int error_number, bool from_then_on) {
  LARDER_CHECK(nth > 0 && error_number > 0, "fault::arm(nth %llu, error %d): both start at 1",
               static_cast<unsigned long long>(nth), error_number);
  armed = false;
  planned_call = which;
  planned_use = nth;
  planned_error = error_number;
  planned_for_ever = from_then_on;
  use_count = 0;
  has_fired = false;
  armed = true;
}

void disarm() { armed = false; }

std::uint64_t uses() { return use_count; }

bool fired() { return has_fired; }

bool count_use(call which) {
  if (planned_call != call::any && planned_call != which) return false;
  const std::uint64_t use = ++use_count;
  if (use != planned_use && !(planned_for_ever && use > planned_use)) return false;
  has_fired = true;
  errno = planned_error;
  return true;
}

}  // namespace larder::os::fault

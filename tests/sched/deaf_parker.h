// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "os/parker.h"

namespace larder::sched {

// The parker of a task that does not wait.
struct deaf_parker final : os::parker {
  void park() override {}
  bool park_until(time_point) override { return true; }
  void unpark() override {}
  bool is_parked() const override { return false; }
};

}  // namespace larder::sched

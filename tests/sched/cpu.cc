// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/cpu.cc: virtual CPUs.
#include "os/cpu.h"

#include "tests/sched/engine.h"

namespace larder::os {

int current_cpu() {
  const sched::engine* running = sched::engine::running();
  return running != nullptr ? static_cast<int>(running->cpu()) : 0;
}

int possible_cpus() {
  const sched::engine* running = sched::engine::running();
  return running != nullptr ? static_cast<int>(running->settings().cpus) : 1;
}

int available_cpus() { return possible_cpus(); }

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/parker.cc: each logical thread has a parker of its own.
#include "os/parker.h"

#include "os/thread_parker.h"
#include "tests/sched/engine.h"

namespace larder::os {

parker& parker::current() {
  static thread_parker outside;
  sched::engine* running = sched::engine::running();
  return running != nullptr ? running->parker() : outside;
}

void parker::set_current(parker* mine) {
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->set_parker(mine);
}

}  // namespace larder::os

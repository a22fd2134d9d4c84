// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/fork.cc: no schedule forks.
#include "os/fork.h"

namespace larder::os {

void join_forks(fork_participant&) {}
void leave_forks(fork_participant&) {}

}  // namespace larder::os

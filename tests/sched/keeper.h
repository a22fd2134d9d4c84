// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::sched {

// From now on the process's keeper is a new one: for a scenario's constructor. It has no thread; a logical thread calls
// its rounds.
void renew_keeper();

}  // namespace larder::sched

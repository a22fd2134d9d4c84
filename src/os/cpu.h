// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::os {

// The CPU this thread runs on at this instant: a hint that may be wrong the moment after. Never negative.
int current_cpu();

// One more than the largest CPU number that can ever appear on this machine, hot-added ones included (KF-13).
int possible_cpus();

// How many CPUs this thread may run on now.
int available_cpus();

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::sched {

// From now on a wild access in a schedule is a failure of that schedule, and of the process only outside of one.
void catch_crashes();

}  // namespace larder::sched

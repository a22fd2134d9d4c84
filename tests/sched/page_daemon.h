// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/units.h>

#include "os/parker.h"

namespace larder::sched {

// The page daemon has no thread: a logical thread makes its rounds, if a scenario's constructor says that it `answers`;
// otherwise there is no room for one.
void set_page_daemon(bool answers);
// Who is to be woken by the next calls; null for nobody.
void set_page_daemon_sleeper(os::parker* sleeper);
// When it is called for, the earliest; `no_deadline` if it is not. Forgets that.
time_point take_page_daemon_call();

}  // namespace larder::sched

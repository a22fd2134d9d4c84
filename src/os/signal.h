// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/units.h>

namespace larder::os {

// Keeps SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 for `await_signal`, and ignores SIGPIPE. The main thread calls it before
// it starts any other.
void hold_signals();

// From now on SIGINT and SIGTERM end the process at once, as they do in one that never held them.
void release_signals();

// Whether that signal asks the process to end: SIGINT and SIGTERM do.
bool asks_to_stop(int signal);
// Whether it asks what everybody does: SIGUSR2 does.
bool asks_for_report(int signal);

// Sleeps until one of those signals comes, and returns its number; 0 when the deadline passed.
int await_signal(time_point deadline);

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/result.h>

namespace larder::os {

// From now on `look(address)` is called for each SIGSEGV and SIGBUS, on the signal's stack, before the handler that was
// there, which gets the signal if `look` returns. Once for the process; later calls change nothing. EINVAL: the
// handlers are as before, and a later call tries again.
result<void> watch_memory_faults(void (*look)(const void* address));

// Gives the calling thread a stack of its own for signals, until it ends, unless it has one: without it a thread whose
// stack is full cannot run a handler. ENOMEM.
result<void> provide_signal_stack();

}  // namespace larder::os

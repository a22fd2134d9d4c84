// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::coro {

// The innermost coroutine that runs on this thread, or null. A runtime exchanges it around each task, so that a task
// that parks inside a coroutine does not leave it to the next.
void* innermost_coroutine();
void set_innermost_coroutine(void* state);

}  // namespace larder::coro

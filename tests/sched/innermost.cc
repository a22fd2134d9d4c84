// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/coro/coroutine.cc: no coroutines run inside of scheduled tasks.
#include "coro/innermost.h"

namespace larder::coro {

void* innermost_coroutine() { return nullptr; }
void set_innermost_coroutine(void*) {}

}  // namespace larder::coro

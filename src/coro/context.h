// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace larder::coro {

// A suspended flow of control: its stack pointer; the rest stands on its stack (context_x86_64.S).
using context = void*;

extern "C" void* larder_switch_context(context* save, context load, void* value);

// Suspends the caller into `save` and goes on in `load`, where this function returns.
inline void switch_context(context& save, context load) { larder_switch_context(&save, load, nullptr); }

// A context that will call `begin(argument)`, which must never return, on the stack that ends at `top` (a multiple of
// 16, exclusive).
context make_context(void* top, void (*begin)(void*), void* argument);

}  // namespace larder::coro

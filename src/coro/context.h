// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/fiber.h>

namespace larder::coro {

using detail::context;
using detail::switch_context;

// A context that will call `begin(argument)`, which must never return, on the stack that ends at `top` (a multiple of
// 16, exclusive), with the floating-point control words of the caller, as a thread inherits its creator's.
context make_context(void* top, void (*begin)(void*), void* argument);

}  // namespace larder::coro

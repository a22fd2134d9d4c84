// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace larder::tests {

// Fills every register that a callee must keep with values made from `seed`, calls `function(argument)`, and returns
// how many of them came back changed. Needs no Google Test. On processors that it is not written for, none did.
std::uint64_t registers_changed_by(void (*function)(void*), void* argument, std::uint64_t seed);

}  // namespace larder::tests

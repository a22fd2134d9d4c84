// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::base {

// In a loop that waits for another thread's store: lets the sibling hardware thread have the core.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" : : : "memory");
#endif
}

}  // namespace larder::base

// SPDX-License-Identifier: Apache-2.0
#include "coro/context.h"

#include "base/check.h"

namespace larder::coro {

extern "C" void larder_enter_context();

context make_context(void* top, void (*begin)(void*), void* argument) {
  LARDER_ASSERT(reinterpret_cast<std::uintptr_t>(top) % 16 == 0, "a stack's top %p is not aligned to 16", top);
  // What larder_enter_context finds: the function on the stack, the argument in the frame pointer.
  auto* const entry = static_cast<void (**)(void*)>(top) - 2;
  *entry = begin;
  context made;
  made.stack_pointer = entry;
  made.frame_pointer = argument;
  made.resume_at = reinterpret_cast<void*>(&larder_enter_context);
  asm volatile("stmxcsr %0" : "=m"(made.mxcsr));
  asm volatile("fnstcw %0" : "=m"(made.x87_control));
  return made;
}

}  // namespace larder::coro

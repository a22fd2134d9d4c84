// SPDX-License-Identifier: Apache-2.0
#include "coro/context.h"

#include <cstdint>

#include "base/check.h"

#if !LARDER_BOOST_CONTEXT

namespace larder::coro {

extern "C" void larder_enter_context();

#if defined(__x86_64__)

// larder_enter_context finds the function on the stack, the argument in the frame pointer.
context make_context(void* top, void (*begin)(void*), void* argument) {
  LARDER_ASSERT(reinterpret_cast<std::uintptr_t>(top) % 16 == 0, "a stack's top %p is not aligned to 16", top);
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

#else

namespace {

// What larder_switch_context loads, in its order.
struct saved_registers {
  std::uint64_t fpcr;
  std::uint64_t unused;
  std::uint64_t d8_to_d15[8];
  void* x19;
  void* x20;
  void* x21_to_x28[8];
  void* x29;
  void* resume_at;
};
static_assert(sizeof(saved_registers) == 176 && offsetof(saved_registers, resume_at) == 168);

}  // namespace

// larder_enter_context finds the argument in x19, the function in x20.
context make_context(void* top, void (*begin)(void*), void* argument) {
  LARDER_ASSERT(reinterpret_cast<std::uintptr_t>(top) % 16 == 0, "a stack's top %p is not aligned to 16", top);
  auto* saved = static_cast<saved_registers*>(top) - 1;
  *saved = {};
  asm volatile("mrs %0, fpcr" : "=r"(saved->fpcr));
  saved->x19 = argument;
  saved->x20 = reinterpret_cast<void*>(begin);
  saved->resume_at = reinterpret_cast<void*>(&larder_enter_context);
  return {saved};
}

#endif

}  // namespace larder::coro

#endif

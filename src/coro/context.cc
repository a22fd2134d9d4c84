// SPDX-License-Identifier: Apache-2.0
#include "coro/context.h"

#include <cstdint>

#include "base/check.h"

#if !defined(__x86_64__)
#error "Larder's context switch is written for x86-64 only"
#endif

namespace larder::coro {

extern "C" void larder_enter_context();

namespace {

// What larder_switch_context pops, in its order.
struct saved_registers {
  std::uint32_t mxcsr;
  std::uint16_t x87_control;
  std::uint16_t unused;
  void* r15;
  void* r14;
  void* r13;
  void* r12;
  void* rbx;
  void* rbp;
  void* resume_at;
};
static_assert(sizeof(saved_registers) == 64 && offsetof(saved_registers, resume_at) == 56);

}  // namespace

context make_context(void* top, void (*begin)(void*), void* argument) {
  LARDER_ASSERT(reinterpret_cast<std::uintptr_t>(top) % 16 == 0, "a stack's top %p is not aligned to 16", top);
  auto* saved = static_cast<saved_registers*>(top) - 1;
  *saved = {};
  // The control words of whoever creates the context, as a thread inherits its creator's.
  asm volatile("stmxcsr %0" : "=m"(saved->mxcsr));
  asm volatile("fnstcw %0" : "=m"(saved->x87_control));
  saved->r12 = argument;
  saved->r13 = reinterpret_cast<void*>(begin);
  saved->resume_at = reinterpret_cast<void*>(&larder_enter_context);
  return saved;
}

}  // namespace larder::coro

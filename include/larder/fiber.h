// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/export.h>

// What coroutine.h inlines: a switch between stacks and the account of it. No interface of its own.

// Whether Boost.Context switches stacks instead of code of our own: as the library was built, whose CMake package and
// pkg-config file tell.
#ifndef LARDER_BOOST_CONTEXT
#define LARDER_BOOST_CONTEXT 0
#endif

// Whether a resume and a yield are inlined: not where a sanitizer must be told of each.
#if LARDER_BOOST_CONTEXT
#undef LARDER_INLINE_SWITCHES
#define LARDER_INLINE_SWITCHES 0
#endif
#ifndef LARDER_INLINE_SWITCHES
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LARDER_INLINE_SWITCHES 1
#else
#define LARDER_INLINE_SWITCHES 0
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef LARDER_INLINE_SWITCHES
#define LARDER_INLINE_SWITCHES 0
#endif
#endif
#endif

namespace larder::detail {

// A suspended flow of control. What a callee must keep is kept; of most registers, the compiler keeps those around a
// switch that are in use there, which are few.
#if LARDER_BOOST_CONTEXT

struct context {
  void* suspended = nullptr;        // Boost.Context's; the rest stands on the stack
  const void* beginning = nullptr;  // what a new one calls (src/coro/context_boost.cc)
};

void switch_context(context& save, const context& load);

#elif defined(__x86_64__)

struct context {
  void* stack_pointer = nullptr;
  void* frame_pointer = nullptr;
  void* base_pointer = nullptr;  // rbx, which some compilers need for themselves
  void* resume_at = nullptr;
  // The floating-point control words. Their status bits are the caller's to lose.
  std::uint32_t mxcsr = 0;
  std::uint16_t x87_control = 0;
};

// Suspends the caller into `save` and goes on in `load`, where this function returns.
[[gnu::always_inline]] inline void switch_context(context& save, const context& load) {
  static_assert(offsetof(context, frame_pointer) == 8 && offsetof(context, base_pointer) == 16 &&
                offsetof(context, resume_at) == 24 && offsetof(context, mxcsr) == 32 &&
                offsetof(context, x87_control) == 36);
  context* saved = &save;
  const context* loaded = &load;
  // Neither call nor return: a return is predicted to go to the last call made, which would be the other stack's, so
  // each one that follows a switch costs some twenty cycles. The control words are loaded only if they differ: that
  // costs more than to compare them.
  asm volatile(
      "leaq 1f(%%rip), %%rax\n\t"
      "movq %%rsp, 0(%0)\n\t"
      "movq %%rbp, 8(%0)\n\t"
      "movq %%rbx, 16(%0)\n\t"
      "movq %%rax, 24(%0)\n\t"
      "stmxcsr 32(%0)\n\t"
      "fnstcw 36(%0)\n\t"
      "movl 32(%1), %%eax\n\t"
      "xorl 32(%0), %%eax\n\t"
      "testl $0xffc0, %%eax\n\t"
      "je 2f\n\t"
      "ldmxcsr 32(%1)\n"
      "2:\n\t"
      "movzwl 36(%1), %%eax\n\t"
      "cmpw 36(%0), %%ax\n\t"
      "je 3f\n\t"
      "fldcw 36(%1)\n"
      "3:\n\t"
      "movq 0(%1), %%rsp\n\t"
      "movq 8(%1), %%rbp\n\t"
      "movq 16(%1), %%rbx\n\t"
      "jmpq *24(%1)\n"
      "1:\n"
      : "+D"(saved), "+S"(loaded)
      :
      : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3",
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
#if defined(__AVX512F__)
        "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27",
        "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7",
#endif
        "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "cc", "memory");
}

#elif defined(__aarch64__)

struct context {
  void* stack_pointer = nullptr;  // the rest stands on the stack (src/coro/context_aarch64.S)
};

extern "C" void larder_switch_context(context* save, const context* load);
inline void switch_context(context& save, const context& load) { larder_switch_context(&save, &load); }

#else
#error "Larder's own context switch is for x86-64 and aarch64; elsewhere it is built with LARDER_BOOST_CONTEXT"
#endif

struct fiber_core;

// The C++ runtime's account of exceptions in flight (__cxa_eh_globals), which is per thread but belongs to the flow of
// control.
struct exceptions_in_flight {
  void* caught = nullptr;
  unsigned int uncaught = 0;

  bool any() const { return caught != nullptr || uncaught != 0; }
};

// What a thread knows of the fibers on it.
struct thread_record {
  fiber_core* innermost = nullptr;  // the one that runs
  // The C++ runtime's; before the thread's first resume one that seems to hold something, so that it is looked up.
  exceptions_in_flight* exceptions = &unknown_exceptions;

  LARDER_API static exceptions_in_flight unknown_exceptions;
};

// The calling thread's. Never to be kept over a switch, after which the thread may be another: each call asks anew,
// which no compiler can undo.
#if LARDER_INLINE_SWITCHES
extern "C" LARDER_API constinit thread_local thread_record larder_thread_record;
[[gnu::always_inline]] inline thread_record& this_thread() {
  thread_record* mine;
  asm volatile("movq larder_thread_record@gottpoff(%%rip), %0\n\taddq %%fs:0, %0" : "=r"(mine) : : "cc");
  return *mine;
}
#else
LARDER_API thread_record& this_thread();
#endif

// The part of a fiber (src/coro/fiber.h) that a switch needs.
//
// Fibers nest: one may resume another, and be suspended from within it. Then the whole nest sleeps, and may wake up on
// another thread; so neither side of a switch may keep the address of a thread-local over it. Who runs on a thread is
// noted in its record, on the resumer's side: a suspend does nothing but switch.
struct fiber_core {
  enum class phase : std::uint8_t { fresh, suspended, idle, running };  // the first two can be resumed

  context own;      // while suspended
  context resumer;  // while running
  // Who runs once this one does: itself, or one that it resumed and that suspended it.
  fiber_core* inner = nullptr;
  fiber_core* outer = nullptr;  // who ran before, while running
  void* passed = nullptr;       // at a coroutine's last resume or yield
  phase now = phase::idle;
  bool is_coroutine = false;
  bool cancelling = false;
  bool failed = false;              // an exception is to be thrown by the resume
  bool holds_exceptions = false;    // some are in `exceptions`
  exceptions_in_flight exceptions;  // its own while suspended; the resumer's while running

  bool can_be_resumed() const { return now <= phase::suspended; }

  // Comparing first, and storing what was compared with, breaks the chain of values that each would else take from
  // memory that the switch before has just written.
  [[gnu::always_inline]] inline void begin_resume() {
    now = phase::running;
    thread_record& here = this_thread();
    if (here.exceptions->any() || holds_exceptions) [[unlikely]]
      exchange_exceptions(here);
    outer = here.innermost;
    here.innermost = inner;
  }
  [[gnu::always_inline]] inline void end_resume() {
    thread_record& here = this_thread();
    inner = here.innermost;
    here.innermost = outer;
    if (here.exceptions->any() || holds_exceptions) [[unlikely]]
      exchange_exceptions(here);
  }

 private:
  // Rare, for most switches are outside of catch blocks and of unwinding.
  LARDER_API void exchange_exceptions(thread_record& here);
};

}  // namespace larder::detail

// SPDX-License-Identifier: Apache-2.0
#include "tests/support/kept_registers.h"

#include <array>
#include <cstddef>

namespace larder::tests {
namespace {

// larder_test_hold(registers, function, argument) sets all of these registers, calls, and stores what they hold
// afterwards.
#if defined(__x86_64__)
using kept_registers = std::array<std::uint64_t, 6>;
asm(R"(
        .text
        .type   larder_test_hold, @function
larder_test_hold:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        pushq   %rdi
        movq    0(%rdi), %rbp
        movq    8(%rdi), %rbx
        movq    16(%rdi), %r12
        movq    24(%rdi), %r13
        movq    32(%rdi), %r14
        movq    40(%rdi), %r15
        movq    %rdx, %rdi
        callq   *%rsi
        popq    %rdi
        movq    %rbp, 0(%rdi)
        movq    %rbx, 8(%rdi)
        movq    %r12, 16(%rdi)
        movq    %r13, 24(%rdi)
        movq    %r14, 32(%rdi)
        movq    %r15, 40(%rdi)
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        retq
        .size   larder_test_hold, . - larder_test_hold
)");
#elif defined(__aarch64__)
using kept_registers = std::array<std::uint64_t, 19>;
asm(R"(
        .text
        .type   larder_test_hold, %function
larder_test_hold:
        stp     x29, x30, [sp, #-176]!
        stp     x19, x20, [sp, #16]
        stp     x21, x22, [sp, #32]
        stp     x23, x24, [sp, #48]
        stp     x25, x26, [sp, #64]
        stp     x27, x28, [sp, #80]
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        str     x0, [sp, #160]
        ldp     d8, d9, [x0, #0]
        ldp     d10, d11, [x0, #16]
        ldp     d12, d13, [x0, #32]
        ldp     d14, d15, [x0, #48]
        ldp     x19, x20, [x0, #64]
        ldp     x21, x22, [x0, #80]
        ldp     x23, x24, [x0, #96]
        ldp     x25, x26, [x0, #112]
        ldp     x27, x28, [x0, #128]
        ldr     x29, [x0, #144]
        mov     x0, x2
        blr     x1
        ldr     x0, [sp, #160]
        stp     d8, d9, [x0, #0]
        stp     d10, d11, [x0, #16]
        stp     d12, d13, [x0, #32]
        stp     d14, d15, [x0, #48]
        stp     x19, x20, [x0, #64]
        stp     x21, x22, [x0, #80]
        stp     x23, x24, [x0, #96]
        stp     x25, x26, [x0, #112]
        stp     x27, x28, [x0, #128]
        str     x29, [x0, #144]
        ldp     x19, x20, [sp, #16]
        ldp     x21, x22, [sp, #32]
        ldp     x23, x24, [sp, #48]
        ldp     x25, x26, [sp, #64]
        ldp     x27, x28, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        ldp     x29, x30, [sp], #176
        ret
        .size   larder_test_hold, . - larder_test_hold
)");
#else
using kept_registers = std::array<std::uint64_t, 0>;
#define LARDER_TEST_HOLDS_NOTHING 1
#endif

extern "C" void larder_test_hold(kept_registers& registers, void (*function)(void*), void* argument);

}  // namespace

std::uint64_t registers_changed_by(void (*function)(void*), void* argument, std::uint64_t seed) {
  kept_registers before{};
  for (std::uint64_t& value : before) value = seed += 0x0123'4567'89ab'cdef;
  kept_registers after = before;
#if defined(LARDER_TEST_HOLDS_NOTHING)
  function(argument);
#else
  larder_test_hold(after, function, argument);
#endif
  std::uint64_t changed = 0;
  for (std::size_t i = 0; i < before.size(); ++i) changed += after[i] == before[i] ? 0U : 1U;
  return changed;
}

}  // namespace larder::tests

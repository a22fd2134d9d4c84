// SPDX-License-Identifier: Apache-2.0
//
// Where a new context begins (System V ABI): rbp holds the argument, and on the stack stands the function, which never
// returns. Unwinding ends here. No shadow-stack property is noted for this file, so a program that links it runs
// without a shadow stack, which a switch would leave behind.

#if defined(__x86_64__) && !LARDER_BOOST_CONTEXT

        .text

        .globl  larder_enter_context
        .hidden larder_enter_context
        .type   larder_enter_context, @function
        .align  16
larder_enter_context:
        .cfi_startproc
        .cfi_undefined %rip
        movq    %rbp, %rdi
        xorl    %ebp, %ebp
        callq   *(%rsp)
        ud2
        .cfi_endproc
        .size   larder_enter_context, . - larder_enter_context

#endif

        .section .note.GNU-stack, "", @progbits

// SPDX-License-Identifier: Apache-2.0
//
// The x86-64 context switch (System V ABI). A suspended context is its stack pointer; on its stack stand, upwards:
//
//   +0   mxcsr (4 bytes), x87 control word (2)
//   +8   r15, r14, r13, r12, rbx, rbp
//   +56  the address it goes on at
//
// Only what a callee must keep is saved: the switch is a call for whoever makes it. No shadow-stack property is noted
// for this file, so a program that links it runs without one.

#if defined(__x86_64__)

        .text

// void* larder_switch_context(void** save, void* load, void* value)
// Suspends the caller into *save, goes on in `load`, and returns `value` there.
        .globl  larder_switch_context
        .hidden larder_switch_context
        .type   larder_switch_context, @function
        .align  16
larder_switch_context:
        .cfi_startproc
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        // The other stack has the same layout, so the unwinding rules above hold for it too.
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        // Not `ret`: the processor would predict the address of the last call made, which is another stack's.
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rcx
        movq    %rdx, %rax
        jmpq    *%rcx
        .cfi_endproc
        .size   larder_switch_context, . - larder_switch_context

// Where a new context begins: r12 holds the argument, r13 the function, which never returns. Unwinding ends here.
        .globl  larder_enter_context
        .hidden larder_enter_context
        .type   larder_enter_context, @function
        .align  16
larder_enter_context:
        .cfi_startproc
        .cfi_undefined %rip
        movq    %r12, %rdi
        callq   *%r13
        ud2
        .cfi_endproc
        .size   larder_enter_context, . - larder_enter_context

#endif

        .section .note.GNU-stack, "", @progbits

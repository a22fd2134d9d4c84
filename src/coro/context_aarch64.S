// SPDX-License-Identifier: Apache-2.0
//
// The aarch64 context switch (AAPCS64). A suspended context is its stack pointer; on its stack stand, upwards:
//
//   +0    fpcr (8 bytes, and 8 unused)
//   +16   d8 to d15
//   +80   x19 to x28
//   +160  x29, x30: the address it goes on at
//
// Only what a callee must keep is saved: the switch is a call for whoever makes it. No property is noted for this file,
// neither BTI nor a guarded control stack, so what links it runs without them: the switch goes on after some call by an
// indirect branch, and no landing pad stands there.

#if defined(__aarch64__) && !LARDER_BOOST_CONTEXT

        .text

// void larder_switch_context(context* save, const context* load)
// Suspends the caller into *save and goes on in *load. A context is its stack pointer.
        .globl  larder_switch_context
        .hidden larder_switch_context
        .type   larder_switch_context, %function
        .p2align 4
larder_switch_context:
        .cfi_startproc
        sub     sp, sp, #176
        .cfi_adjust_cfa_offset 176
        stp     x29, x30, [sp, #160]
        .cfi_rel_offset x29, 160
        .cfi_rel_offset x30, 168
        stp     x27, x28, [sp, #144]
        .cfi_rel_offset x27, 144
        .cfi_rel_offset x28, 152
        stp     x25, x26, [sp, #128]
        .cfi_rel_offset x25, 128
        .cfi_rel_offset x26, 136
        stp     x23, x24, [sp, #112]
        .cfi_rel_offset x23, 112
        .cfi_rel_offset x24, 120
        stp     x21, x22, [sp, #96]
        .cfi_rel_offset x21, 96
        .cfi_rel_offset x22, 104
        stp     x19, x20, [sp, #80]
        .cfi_rel_offset x19, 80
        .cfi_rel_offset x20, 88
        stp     d14, d15, [sp, #64]
        .cfi_rel_offset d14, 64
        .cfi_rel_offset d15, 72
        stp     d12, d13, [sp, #48]
        .cfi_rel_offset d12, 48
        .cfi_rel_offset d13, 56
        stp     d10, d11, [sp, #32]
        .cfi_rel_offset d10, 32
        .cfi_rel_offset d11, 40
        stp     d8, d9, [sp, #16]
        .cfi_rel_offset d8, 16
        .cfi_rel_offset d9, 24
        mrs     x9, fpcr
        str     x9, [sp]
        mov     x10, sp
        str     x10, [x0]
        ldr     x10, [x1]
        mov     sp, x10
        // The other stack has the same layout, so the unwinding rules above hold for it too.
        ldr     x10, [sp]
        cmp     x9, x10
        b.eq    1f              // mostly; a write would wait for whatever computes
        msr     fpcr, x10
1:      ldp     d8, d9, [sp, #16]
        .cfi_restore d8
        .cfi_restore d9
        ldp     d10, d11, [sp, #32]
        .cfi_restore d10
        .cfi_restore d11
        ldp     d12, d13, [sp, #48]
        .cfi_restore d12
        .cfi_restore d13
        ldp     d14, d15, [sp, #64]
        .cfi_restore d14
        .cfi_restore d15
        ldp     x19, x20, [sp, #80]
        .cfi_restore x19
        .cfi_restore x20
        ldp     x21, x22, [sp, #96]
        .cfi_restore x21
        .cfi_restore x22
        ldp     x23, x24, [sp, #112]
        .cfi_restore x23
        .cfi_restore x24
        ldp     x25, x26, [sp, #128]
        .cfi_restore x25
        .cfi_restore x26
        ldp     x27, x28, [sp, #144]
        .cfi_restore x27
        .cfi_restore x28
        ldp     x29, x30, [sp, #160]
        .cfi_restore x29
        .cfi_restore x30
        add     sp, sp, #176
        .cfi_adjust_cfa_offset -176
        // Not `ret`: the processor would predict the address of the last call made, which is another stack's.
        br      x30
        .cfi_endproc
        .size   larder_switch_context, . - larder_switch_context

// Where a new context begins: x19 holds the argument, x20 the function, which never returns. Unwinding ends here.
        .globl  larder_enter_context
        .hidden larder_enter_context
        .type   larder_enter_context, %function
        .p2align 4
larder_enter_context:
        .cfi_startproc
        .cfi_undefined x30
        mov     x0, x19
        blr     x20
        brk     #1000
        .cfi_endproc
        .size   larder_enter_context, . - larder_enter_context

#endif

        .section .note.GNU-stack, "", %progbits

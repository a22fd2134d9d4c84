// SPDX-License-Identifier: Apache-2.0
//
// The floors of the benchmarks: what taking a word from a stack and putting one back costs where nothing is named,
// found, checked, balanced or shared. `rseq_array` has a stack for each CPU and commits each change in a restartable
// sequence; `thread_stack` has one for each thread and no care at all. A stack starts half full, so that what one CPU
// loses to another by migrations neither empties nor fills it in a run; if it does, the program traps.
#pragma once

#include <sys/rseq.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "os/cpu.h"

namespace larder::bench {

// With its depth, a stack is 256 KiB: a CPU's is found by a shift.
constexpr std::uint64_t floor_depth = (1 << 15) - 1;

class rseq_array {
 public:
  using name = std::uint64_t;

  rseq_array() : stacks_(static_cast<std::size_t>(os::possible_cpus())) {
    LARDER_CHECK(__rseq_size != 0, "the C library has registered no restartable sequences");
    for (stack& each : stacks_) each.depth = floor_depth / 2;
  }
  // With the words next(), next(), … in the stacks instead of zeros.
  template <typename Next>
  explicit rseq_array(Next next) : rseq_array() {
    for (stack& each : stacks_) {
      for (std::uint64_t at = 0; at < each.depth; ++at) each.names[at] = next();
    }
  }

  // What a sequence is made of: the descriptor that tells the kernel where it is, the store that arms it, and the abort
  // behind glibc's signature, which begins afresh. `address` becomes that of this CPU's stack, `depth` its depth.
  // clang-format off
#define LARDER_BENCH_SEQUENCE(body)                 \
  ".pushsection __rseq_cs, \"aw\"\n\t"              \
  ".balign 32\n"                                    \
  "3:\n\t"                                          \
  ".long 0, 0\n\t"                                  \
  ".quad 1f, 2f - 1f, 4f\n\t"                       \
  ".popsection\n\t"                                 \
  ".pushsection __rseq_failure, \"ax\"\n\t"         \
  ".byte 0x0f, 0xb9, 0x3d\n\t"                      \
  ".long %c[signature]\n"                           \
  "4:\n\t"                                          \
  "jmp 0f\n"                                        \
  "5:\n\t"                                          \
  "ud2\n\t"                                         \
  ".popsection\n"                                   \
  "0:\n\t"                                          \
  "leaq 3b(%%rip), %[address]\n\t"                  \
  "movq %[address], %%fs:8(%[area])\n"              \
  "1:\n\t"                                          \
  "movl %%fs:4(%[area]), %k[address]\n\t"           \
  "shlq %[stack_shift], %[address]\n\t"             \
  "addq %[stacks], %[address]\n\t"                  \
  "movq (%[address]), %[depth]\n\t"                 \
  body                                              \
  "2:\n\t"
  // clang-format on

  name insert(int*) {
    std::uint64_t address;
    std::uint64_t depth;
    std::uint64_t taken;
    // The number on top stands `depth` words after the depth itself.
    asm volatile(LARDER_BENCH_SEQUENCE("testq %[depth], %[depth]\n\t"
                                       "jz 5b\n\t"
                                       "movq (%[address], %[depth], 8), %[taken]\n\t"
                                       "decq %[depth]\n\t"
                                       "movq %[depth], (%[address])\n")
                 : [address] "=&r"(address), [depth] "=&r"(depth), [taken] "=&r"(taken)
                 : [area] "r"(__rseq_offset), [stacks] "r"(stacks_.data()), [stack_shift] "i"(stack_shift),
                   [signature] "i"(RSEQ_SIG)
                 : "cc", "memory");
    return taken;
  }

  bool erase(name put) {
    std::uint64_t address;
    std::uint64_t depth;
    asm volatile(LARDER_BENCH_SEQUENCE("cmpq %[depth_max], %[depth]\n\t"
                                       "je 5b\n\t"
                                       "movq %[put], 8(%[address], %[depth], 8)\n\t"
                                       "incq %[depth]\n\t"
                                       "movq %[depth], (%[address])\n")
                 : [address] "=&r"(address), [depth] "=&r"(depth)
                 : [area] "r"(__rseq_offset), [stacks] "r"(stacks_.data()), [stack_shift] "i"(stack_shift),
                   [signature] "i"(RSEQ_SIG), [depth_max] "i"(floor_depth), [put] "r"(put)
                 : "cc", "memory");
    return true;
  }

#undef LARDER_BENCH_SEQUENCE

 private:
  struct alignas(64) stack {
    std::uint64_t depth = 0;
    std::array<name, floor_depth> names{};
  };
  static constexpr int stack_shift = 18;
  static_assert(sizeof(stack) == std::size_t{1} << stack_shift);

  std::vector<stack> stacks_;
};

class thread_stack {
 public:
  using name = std::uint64_t;

  thread_stack() = default;
  // With the words next(), next(), … in this thread's stack instead of zeros. A thread has one stack for all objects of
  // this class: one is in use at a time.
  template <typename Next>
  explicit thread_stack(Next next) {
    above_half_ = 0;
    for (std::uint64_t at = 0; at < floor_depth / 2; ++at) names_[at] = next();
  }

  name insert(int*) { return names_[floor_depth / 2 + --above_half_]; }
  bool erase(name put) {
    names_[floor_depth / 2 + above_half_++] = put;
    return true;
  }

 private:
  // From zero, so that a thread's stack needs no constructor; wraps below it.
  static inline constinit thread_local std::uint64_t above_half_ = 0;
  static inline constinit thread_local std::array<name, floor_depth> names_{};
};

}  // namespace larder::bench

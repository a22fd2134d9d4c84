// SPDX-License-Identifier: Apache-2.0
//
// The instructions of cpu_sequence.h for x86-64, to be inlined where they are used. A descriptor in `__rseq_cs` tells
// the kernel where a sequence begins, how long it is and where its abort goes; storing the descriptor's address into
// the thread's rseq area arms it. No other field of that area is written (newer kernels kill who does), and nothing
// disarms it: the kernel forgets it when it finds the thread outside. So a library with sequences is never unloaded.
#pragma once

#include <cstddef>

#include "base/check.h"
#include "os/cpu.h"
#include "os/cpu_sequence.h"

namespace larder::os {

#if defined(__x86_64__) && defined(__linux__)
#define LARDER_HAVE_SEQUENCES 1
#else
#define LARDER_HAVE_SEQUENCES 0
#endif

namespace detail {

// Where the thread's rseq area and the field that numbers the CPU are, from the thread pointer. Written once, before
// `sequences()` first returns.
struct sequence_places {
  sequence_mode mode = sequence_mode::sharded;
  std::ptrdiff_t area = 0;
  std::ptrdiff_t cpu = 0;
};
extern sequence_places places;

// Offsets in the area, which are the kernel's interface.
constexpr int registered_cpu_offset = 4;
constexpr int descriptor_offset = 8;
constexpr int concurrency_id_offset = 24;

inline std::uint32_t load_from_thread(std::ptrdiff_t offset) {
#if LARDER_HAVE_SEQUENCES
  std::uint32_t value;
  // Volatile and not combined with other loads: the kernel changes it between any two instructions.
  asm volatile("movl %%fs:(%[offset]), %[value]" : [value] "=r"(value) : [offset] "r"(offset));
  return value;
#else
  static_cast<void>(offset);
  return 0;
#endif
}

// Whether the C library has registered this thread; a filter of system calls may have kept it from that. If not, the
// concurrency id says nothing.
inline bool is_registered() {
#if LARDER_HAVE_SEQUENCES
  asm goto(
      "cmpl $0, %%fs:%c[registered](%[area])\n\t"
      "js %l[no]"
      :
      : [area] "r"(places.area), [registered] "i"(registered_cpu_offset)
      : "cc"
      : no);
  return true;
no:
#endif
  return false;
}

}  // namespace detail

inline bool find_sequence_cpu(std::uint32_t& cpu) {
  if (!detail::is_registered()) [[unlikely]]
    return false;
  cpu = detail::load_from_thread(detail::places.cpu);
  return true;
}

inline int sequence_cpu() {
  if (detail::places.mode == sequence_mode::sharded) return current_cpu();
  std::uint32_t cpu;
  return find_sequence_cpu(cpu) ? static_cast<int>(cpu) : -1;
}

#if LARDER_HAVE_SEQUENCES

// Inlined always: a function of its own, merged by the linker with its twins, would leave descriptors of code that is
// not there.
//
// A sequence: the descriptor, its arming, the two checks that every sequence begins with, `body`, and the abort, which
// must stand behind the signature that glibc registers (an undefined instruction, so that it is no gadget).
// clang-format off
#define LARDER_SEQUENCE(body)                                        \
  ".pushsection __rseq_cs, \"aw\"\n\t"                               \
  ".balign 32\n"                                                     \
  "3:\n\t"                                                           \
  ".long 0, 0\n\t"                                                   \
  ".quad 1f, 2f - 1f, 4f\n\t"                                        \
  ".popsection\n\t"                                                  \
  "leaq 3b(%%rip), %%rax\n\t"                                        \
  "movq %%rax, %%fs:%c[descriptor](%[area])\n"                       \
  "1:\n\t"                                                           \
  body                                                               \
  "2:\n\t"                                                           \
  ".pushsection __rseq_failure, \"ax\"\n\t"                          \
  ".byte 0x0f, 0xb9, 0x3d\n\t"                                       \
  ".long 0x53053053\n"                                               \
  "4:\n\t"                                                           \
  "jmp %l[restarted]\n\t"                                            \
  ".popsection\n\t"

// What compare_store looks at.
#define LARDER_COMPARE                                               \
  "cmpl %[cpu], %%fs:(%[cpu_place])\n\t"                             \
  "jne %l[restarted]\n\t"                                            \
  "cmpq %[open], %[gate]\n\t"                                        \
  "jne %l[restarted]\n\t"                                            \
  "cmpq %[expected], %[word]\n\t"                                    \
  "jne %l[differs]\n\t"
// clang-format on

[[gnu::always_inline]] inline sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate,
                                                            std::uint64_t open, base::atomic<std::uint64_t>& word,
                                                            std::uint64_t expected, std::uint64_t desired) {
  asm goto(LARDER_SEQUENCE(LARDER_COMPARE "movq %[desired], %[word]\n")
           :
           : [area] "r"(detail::places.area), [cpu_place] "r"(detail::places.cpu), [cpu] "r"(cpu), [open] "er"(open),
             [expected] "r"(expected), [desired] "r"(desired), [gate] "m"(gate), [word] "m"(word),
             [descriptor] "i"(detail::descriptor_offset)
           : "rax", "cc", "memory"
           : restarted, differs);
  return sequence_result::done;
differs:
  return sequence_result::differs;
restarted:
  return sequence_result::restarted;
}

[[gnu::always_inline]] inline sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate,
                                                            std::uint64_t open, base::atomic<std::uint64_t>& word,
                                                            std::uint64_t expected, std::uint64_t desired,
                                                            base::atomic<std::uint32_t>& place, std::uint32_t element) {
  asm goto(LARDER_SEQUENCE(LARDER_COMPARE "movl %[element], %[place]\n\t"
                                          "movq %[desired], %[word]\n")
           :
           : [area] "r"(detail::places.area), [cpu_place] "r"(detail::places.cpu), [cpu] "r"(cpu), [open] "er"(open),
             [expected] "r"(expected), [desired] "r"(desired), [gate] "m"(gate), [word] "m"(word), [place] "m"(place),
             [element] "r"(element), [descriptor] "i"(detail::descriptor_offset)
           : "rax", "cc", "memory"
           : restarted, differs);
  return sequence_result::done;
differs:
  return sequence_result::differs;
restarted:
  return sequence_result::restarted;
}

[[gnu::always_inline]] inline sequence_result gated_compare_exchange(const base::atomic<std::uint64_t>& gate,
                                                                     std::uint64_t open,
                                                                     base::atomic<std::uint64_t>& word,
                                                                     std::uint64_t expected, std::uint64_t desired) {
  asm goto(LARDER_SEQUENCE("cmpq %[open], %[gate]\n\t"
                           "jne %l[restarted]\n\t"
                           "movq %[expected], %%rax\n\t"
                           "cmpq %%rax, %[word]\n\t"
                           "jne %l[differs]\n\t"
                           "lock cmpxchgq %[desired], %[word]\n")
           // The commit was made, and its verdict stands in the flags.
           "jne %l[differs]\n\t"
           :
           : [area] "r"(detail::places.area), [open] "er"(open), [expected] "r"(expected), [desired] "r"(desired),
             [gate] "m"(gate), [word] "m"(word), [descriptor] "i"(detail::descriptor_offset)
           : "rax", "cc", "memory"
           : restarted, differs);
  return sequence_result::done;
differs:
  return sequence_result::differs;
restarted:
  return sequence_result::restarted;
}

#undef LARDER_COMPARE
#undef LARDER_SEQUENCE

#else

inline sequence_result compare_store(std::uint32_t, const base::atomic<std::uint64_t>&, std::uint64_t,
                                     base::atomic<std::uint64_t>&, std::uint64_t, std::uint64_t) {
  base::die(__FILE__, __LINE__, "a sequence on a processor that has none written");
}

inline sequence_result compare_store(std::uint32_t, const base::atomic<std::uint64_t>&, std::uint64_t,
                                     base::atomic<std::uint64_t>&, std::uint64_t, std::uint64_t,
                                     base::atomic<std::uint32_t>&, std::uint32_t) {
  base::die(__FILE__, __LINE__, "a sequence on a processor that has none written");
}

inline sequence_result gated_compare_exchange(const base::atomic<std::uint64_t>&, std::uint64_t,
                                              base::atomic<std::uint64_t>&, std::uint64_t, std::uint64_t) {
  base::die(__FILE__, __LINE__, "a sequence on a processor that has none written");
}

#endif

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
//
// The fast path of an object cache, for raw_cache.h to inline: pop and push of this CPU's array of free objects, each
// in a restartable sequence (Linux rseq). Not for use by itself.
//
// A sequence is a few instructions that end in one store. A thread that is preempted, migrated, signalled or fenced off
// in the middle is sent back to the beginning by the kernel, so on one CPU sequences are atomic to each other without a
// lock and without an atomic instruction. The idea is Paul Turner's and Andrew Hunter's; per-CPU caches on it are
// tcmalloc's.
//
// Who unloads a shared object that inlines this (dlclose) must have linked it with -z nodelete: the kernel may look at
// a sequence's descriptor after the thread has left the sequence. Define LARDER_INLINE_SEQUENCES=0 to call the library
// instead.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 35)
#define LARDER_HAVE_ARRAY_SEQUENCES 1
#endif
#endif
#ifndef LARDER_HAVE_ARRAY_SEQUENCES
#define LARDER_HAVE_ARRAY_SEQUENCES 0
#endif

// A sanitizer must see each get and put: these go through the library then.
#if !defined(LARDER_INLINE_SEQUENCES) && (defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__))
#define LARDER_INLINE_SEQUENCES 0
#endif
#if !defined(LARDER_INLINE_SEQUENCES) && defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LARDER_INLINE_SEQUENCES 0
#endif
#endif
#ifndef LARDER_INLINE_SEQUENCES
#define LARDER_INLINE_SEQUENCES LARDER_HAVE_ARRAY_SEQUENCES
#endif

#if LARDER_HAVE_ARRAY_SEQUENCES
#include <sys/rseq.h>
#endif

namespace larder::detail {

// Where the arrays are; the library's os::array_front. At first there is none, and both functions below refuse.
struct cpu_front {
  std::uintptr_t words[3] = {};
};

#if LARDER_HAVE_ARRAY_SEQUENCES

// Offsets, in text because they stand in instructions: in the thread's rseq area (the kernel's interface), in a
// cpu_front, and in an array. os/cpu_array.h asserts those that are ours.
//
//   word      of an array: its length in bits 0 to 15, the gets it has served above, so that one store commits both
//   capacity  the length up to which a push may fill it
//
// clang-format off
#define LARDER_RSEQ_CPU_ID "4"
#define LARDER_RSEQ_DESCRIPTOR "8"
#define LARDER_FRONT_POP_TABLE "0"
#define LARDER_FRONT_PUSH_TABLE "8"
#define LARDER_FRONT_CPU "16"
#define LARDER_ARRAY_CAPACITY "8"
#define LARDER_ARRAY_OBJECTS "16"

// The descriptor: where the sequence begins (1), how long it is (to 2), where its abort goes (4). The abort stands
// behind the signature that glibc registers, in an undefined instruction, so that it is no gadget; it begins afresh.
// "?": in the section group of the function that it is inlined into, so that it goes where that goes.
#define LARDER_ARRAY_SEQUENCE(cold)                                    \
  ".pushsection __rseq_cs, \"aw?\"\n\t"                                \
  ".balign 32\n"                                                       \
  "3:\n\t"                                                             \
  ".long 0, 0\n\t"                                                     \
  ".quad 1f, 2f - 1f, 4f\n\t"                                          \
  ".popsection\n\t"                                                    \
  ".pushsection __rseq_failure, \"ax?\"\n\t"                           \
  ".byte 0x0f, 0xb9, 0x3d\n\t"                                         \
  ".long 0x53053053\n"                                                 \
  "4:\n\t"                                                             \
  "jmp 0f\n"                                                           \
  cold                                                                 \
  ".popsection\n"                                                      \
  "0:\n\t"

// Arms the sequence and finds this CPU's array by the table that stands at `table` in the front; the array's word goes
// to `word`. A thread that the C library could not register has a negative CPU, and no concurrency id.
#define LARDER_ARRAY_FIND(table, array, array32, word, refuse)         \
  "cmpl $0, %%fs:" LARDER_RSEQ_CPU_ID "(%[area])\n\t"                  \
  "js " refuse "\n\t"                                                  \
  "leaq 3b(%%rip), " array "\n\t"                                      \
  "movq " array ", %%fs:" LARDER_RSEQ_DESCRIPTOR "(%[area])\n"         \
  "1:\n\t"                                                             \
  "movq " LARDER_FRONT_CPU "(%[front]), " array "\n\t"                 \
  "movl %%fs:(" array "), " array32 "\n\t"                             \
  "movq " table "(%[front]), " word "\n\t"                             \
  "movq (" word ", " array ", 8), " array "\n\t"                       \
  "movq (" array "), " word "\n\t"
// clang-format on

// The object that was pushed last on this CPU, or null: the array is empty, closed, or not there.
[[gnu::always_inline]] inline void* pop_cached(const cpu_front& front) {
  void* object;
  std::uintptr_t array;
  std::uintptr_t word;
  std::uintptr_t index;
  asm volatile(
      // clang-format off
      LARDER_ARRAY_SEQUENCE("5:\n\t"
                            "xorl %k[object], %k[object]\n\t"
                            "jmp 2f\n\t")
      LARDER_ARRAY_FIND(LARDER_FRONT_POP_TABLE, "%[array]", "%k[array]", "%[word]", "5b")
      "movzwl %w[word], %k[index]\n\t"
      "subl $1, %k[index]\n\t"
      "jc 5b\n\t"
      "movq " LARDER_ARRAY_OBJECTS "(%[array], %[index], 8), %[object]\n\t"
      "addq $0xffff, %[word]\n\t"  // one get more, one object less
      "movq %[word], (%[array])\n"
      "2:\n\t"
      // clang-format on
      : [object] "=&r"(object), [array] "=&r"(array), [word] "=&r"(word), [index] "=&r"(index)
      : [front] "r"(&front), [area] "r"(__rseq_offset)
      : "cc", "memory");
  return object;
}

// False, and nothing, where the array is full, closed, or not there.
[[gnu::always_inline]] inline bool push_cached(const cpu_front& front, void* object) {
  asm goto(
      // clang-format off
      LARDER_ARRAY_SEQUENCE("")
      LARDER_ARRAY_FIND(LARDER_FRONT_PUSH_TABLE, "%%rax", "%%eax", "%%rdx", "%l[refused]")
      "movzwl %%dx, %%ecx\n\t"
      "cmpl " LARDER_ARRAY_CAPACITY "(%%rax), %%ecx\n\t"
      "jae %l[refused]\n\t"
      "movq %[object], " LARDER_ARRAY_OBJECTS "(%%rax, %%rcx, 8)\n\t"
      "incq %%rdx\n\t"
      "movq %%rdx, (%%rax)\n"
      "2:\n\t"
      // clang-format on
      :
      : [front] "r"(&front), [object] "r"(object), [area] "r"(__rseq_offset)
      : "rax", "rcx", "rdx", "cc", "memory"
      : refused);
  return true;
refused:
  return false;
}

#else

inline void* pop_cached(const cpu_front&) { return nullptr; }
inline bool push_cached(const cpu_front&, void*) { return false; }

#endif

}  // namespace larder::detail

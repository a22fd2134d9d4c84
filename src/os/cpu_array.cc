// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_array.h"

#include <sys/rseq.h>

#include "base/check.h"
#include "os/cpu.h"

namespace larder::os {

static_assert(detail::registered_cpu_offset == 4 && detail::descriptor_offset == 8);

cpu_array* closed_array() {
  static constinit cpu_array closed{};
  return &closed;
}

cpu_array_table* closed_table() {
  static cpu_array_table* const table = [] {
    const auto cpus = static_cast<std::size_t>(possible_cpus());
    auto* made = new cpu_array_table[cpus];
    for (std::size_t cpu = 0; cpu < cpus; ++cpu) made[cpu].store(closed_array(), base::memory_order_relaxed);
    return made;
  }();
  return table;
}

void set_front_cpu(array_front& front) {
#if LARDER_HAVE_ARRAY_SEQUENCES
  // Inlined code indexes the closed table where there are no sequences, too: by a number that is in it.
  front.cpu =
      sequences() == sequence_mode::sharded ? __rseq_offset + detail::registered_cpu_offset : detail::places.cpu;
#else
  front.cpu = 0;
#endif
}

#if LARDER_HAVE_ARRAY_SEQUENCES

namespace {

const larder::detail::cpu_front& as_public(const array_front& front) {
  return reinterpret_cast<const larder::detail::cpu_front&>(front);
}

}  // namespace

void* pop(const array_front& front) { return larder::detail::pop_cached(as_public(front)); }
bool push(const array_front& front, void* object) { return larder::detail::push_cached(as_public(front), object); }

// The copy is one string instruction: a sequence is short in instructions, not in bytes. An interrupted one is sent
// back to the beginning as a whole.
[[gnu::noinline]] std::size_t pop_many(const array_front& front, void** objects, std::size_t count,
                                       std::uint64_t step) {
  std::uintptr_t moved;
  std::uintptr_t array;
  std::uintptr_t word;
  asm volatile(
      // clang-format off
      LARDER_ARRAY_SEQUENCE("5:\n\t"
                            "xorl %k[moved], %k[moved]\n\t"
                            "jmp 2f\n\t")
      LARDER_ARRAY_FIND(LARDER_FRONT_POP_TABLE, "%[array]", "%k[array]", "%[word]", "5b")
      "movzwl %w[word], %k[moved]\n\t"
      "leaq " LARDER_ARRAY_OBJECTS "(%[array], %[moved], 8), %%rsi\n\t"
      "cmpq %[count], %[moved]\n\t"
      "cmovaq %[count], %[moved]\n\t"
      "testq %[moved], %[moved]\n\t"
      "jz 5b\n\t"
      "movq %[moved], %%rcx\n\t"
      "leaq (, %%rcx, 8), %%rdi\n\t"
      "subq %%rdi, %%rsi\n\t"
      "movq %[objects], %%rdi\n\t"
      "rep movsq\n\t"
      "movq %[moved], %%rcx\n\t"
      "imulq %[step], %%rcx\n\t"
      "addq %%rcx, %[word]\n\t"
      "movq %[word], (%[array])\n"
      "2:\n\t"
      // clang-format on
      : [moved] "=&r"(moved), [array] "=&r"(array), [word] "=&r"(word)
      : [front] "r"(&front), [area] "r"(__rseq_offset), [objects] "r"(objects), [count] "r"(count), [step] "r"(step)
      : "rcx", "rsi", "rdi", "cc", "memory");
  return moved;
}

[[gnu::noinline]] std::size_t push_many(const array_front& front, void* const* objects, std::size_t count) {
  std::uintptr_t moved;
  std::uintptr_t array;
  std::uintptr_t word;
  asm volatile(
      // clang-format off
      LARDER_ARRAY_SEQUENCE("5:\n\t"
                            "xorl %k[moved], %k[moved]\n\t"
                            "jmp 2f\n\t")
      LARDER_ARRAY_FIND(LARDER_FRONT_PUSH_TABLE, "%[array]", "%k[array]", "%[word]", "5b")
      "movzwl %w[word], %%ecx\n\t"
      "leaq " LARDER_ARRAY_OBJECTS "(%[array], %%rcx, 8), %%rdi\n\t"
      "movl " LARDER_ARRAY_CAPACITY "(%[array]), %k[moved]\n\t"
      "subq %%rcx, %[moved]\n\t"
      "jbe 5b\n\t"  // full, or above a capacity that was lowered
      "cmpq %[count], %[moved]\n\t"
      "cmovaq %[count], %[moved]\n\t"
      "movq %[moved], %%rcx\n\t"
      "movq %[objects], %%rsi\n\t"
      "rep movsq\n\t"
      "addq %[moved], %[word]\n\t"
      "movq %[word], (%[array])\n"
      "2:\n\t"
      // clang-format on
      : [moved] "=&r"(moved), [array] "=&r"(array), [word] "=&r"(word)
      : [front] "r"(&front), [area] "r"(__rseq_offset), [objects] "r"(objects), [count] "r"(count)
      : "rcx", "rsi", "rdi", "cc", "memory");
  return moved;
}

#else

void* pop(const array_front&) { return nullptr; }
bool push(const array_front&, void*) { return false; }
std::size_t pop_many(const array_front&, void**, std::size_t, std::uint64_t) { return 0; }
std::size_t push_many(const array_front&, void* const*, std::size_t) { return 0; }

#endif

}  // namespace larder::os

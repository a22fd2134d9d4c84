// SPDX-License-Identifier: Apache-2.0
//
// Arrays of pointers, one for each CPU, that only the CPU's own threads change, in restartable sequences
// (cpu_sequence.h): without a lock and without an atomic read-modify-write. Pop and push of one pointer are inlined
// into the library's users (<larder/cpu_array.h>); those of many are here. All reach an array through a table that
// stands in a front. Who stores another table there, and then fences, is alone with the arrays that the old one led to:
// whoever was in a sequence begins again, and finds the new one.
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/cpu_array.h>

#include "base/atomic.h"
#include "os/cpu_sequence.h"

namespace larder::os {

// The head of an array; the pointers follow it.
struct cpu_array {
  // length + 65536 · (gets served, modulo 2^48): changed by one store, so that both are always of one moment.
  base::atomic<std::uint64_t> word;
  base::atomic<std::uint32_t> capacity;  // the length up to which a push may fill it
  base::atomic<std::uint32_t> locked;    // where there are no sequences

  static constexpr std::uint64_t length_mask = 0xffff;
  static constexpr unsigned gets_shift = 16;
  // What popping one adds to the word where it counts as a get, and where it does not.
  static constexpr std::uint64_t get_step = (std::uint64_t{1} << gets_shift) - 1;
  static constexpr std::uint64_t move_step = ~std::uint64_t{0};

  void** objects() { return reinterpret_cast<void**>(this + 1); }
  static constexpr std::size_t length_of(std::uint64_t word) { return word & length_mask; }
};
static_assert(sizeof(cpu_array) == 16, "LARDER_ARRAY_OBJECTS");
static_assert(offsetof(cpu_array, capacity) == 8, "LARDER_ARRAY_CAPACITY");

using cpu_array_table = base::atomic<cpu_array*>;  // an element for each CPU; none is null

// What detail::cpu_front is within the library.
struct array_front {
  base::atomic<cpu_array_table*> pop_table;
  base::atomic<cpu_array_table*> push_table;
  std::ptrdiff_t cpu;  // where the thread's CPU number is, from the thread pointer
};
static_assert(sizeof(array_front) == sizeof(larder::detail::cpu_front));
static_assert(offsetof(array_front, push_table) == 8, "LARDER_FRONT_PUSH_TABLE");
static_assert(offsetof(array_front, cpu) == 16, "LARDER_FRONT_CPU");

// A table that leads every CPU to an array that has nothing and takes nothing, and is never written.
cpu_array_table* closed_table();
cpu_array* closed_array();

// Of this CPU's array: as many as there are, up to `count`; what was pushed last stands last. `step` says what each
// adds to the word. 0 also where the sequences cannot run.
std::size_t pop_many(const array_front& front, void** objects, std::size_t count, std::uint64_t step);
// As many as fit; the last stands uppermost then. Returns how many.
std::size_t push_many(const array_front& front, void* const* objects, std::size_t count);
// One, as detail::pop_cached and push_cached do.
void* pop(const array_front& front);
bool push(const array_front& front, void* object);

// Prepares a front whose tables are set afterwards.
void set_front_cpu(array_front& front);

}  // namespace larder::os

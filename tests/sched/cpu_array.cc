// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/cpu_array.cc: each memory access of a sequence on an array is a step. What the system
// interrupts begins afresh, as it does there.
#include "os/cpu_array.h"

#include <algorithm>
#include <array>
#include <optional>

#include "os/cpu.h"
#include "tests/sched/decision.h"
#include "tests/sched/sequence.h"

namespace larder::os {
namespace {

using base::schedule::access;
using sched::sequence;

// The array that this CPU is led to, and its word; nothing if the sequence was interrupted on the way.
struct found_array {
  cpu_array* array;
  std::uint64_t word;
};
std::optional<found_array> find(sequence& mine, const base::atomic<cpu_array_table*>& table_of_front) {
  const auto cpu = static_cast<std::size_t>(current_cpu());
  if (!mine.reaches(&table_of_front)) return {};
  const cpu_array_table* table = mine.value_of(table_of_front);
  if (!mine.reaches(&table[cpu])) return {};
  cpu_array* array = mine.value_of(table[cpu]);
  if (!mine.reaches(&array->word)) return {};
  return found_array{array, mine.value_of(array->word)};
}

bool commit(sequence& mine, cpu_array& array, std::uint64_t word) {
  if (!mine.reaches(&array.word, access::sequence_store)) return false;
  mine.store(array.word, word);
  return true;
}

// What follows is one attempt: nothing if it was interrupted.
std::optional<std::size_t> try_pop(const array_front& front, void** objects, std::size_t count, std::uint64_t step) {
  sequence mine;
  const std::optional<found_array> found = find(mine, front.pop_table);
  if (!found) return {};
  const std::size_t length = cpu_array::length_of(found->word);
  const std::size_t moved = std::min(count, length);
  for (std::size_t i = 0; i < moved; ++i) {
    void*& from = found->array->objects()[length - moved + i];
    if (!mine.reaches(&from)) return {};
    objects[i] = mine.value_of(from);
  }
  if (moved > 0 && !commit(mine, *found->array, found->word + moved * step)) return {};
  return moved;
}

std::optional<std::size_t> try_push(const array_front& front, void* const* objects, std::size_t count) {
  sequence mine;
  const std::optional<found_array> found = find(mine, front.push_table);
  if (!found) return {};
  const std::size_t length = cpu_array::length_of(found->word);
  if (!mine.reaches(&found->array->capacity)) return {};
  const std::size_t capacity = mine.value_of(found->array->capacity);
  const std::size_t moved = length < capacity ? std::min(count, capacity - length) : 0;
  for (std::size_t i = 0; i < moved; ++i) {
    void*& to = found->array->objects()[length + i];
    if (!mine.reaches(&to, access::sequence_store)) return {};
    mine.store(to, objects[i]);
  }
  if (moved > 0 && !commit(mine, *found->array, found->word + moved)) return {};
  return moved;
}

}  // namespace

cpu_array* closed_array() {
  static constinit cpu_array closed{};
  return &closed;
}

cpu_array_table* closed_table() {
  static cpu_array_table* const table = [] {
    constexpr std::size_t cpus_max = 64;
    auto* made = new cpu_array_table[cpus_max];
    for (std::size_t cpu = 0; cpu < cpus_max; ++cpu) made[cpu].unscheduled() = closed_array();
    return made;
  }();
  return table;
}

void set_front_cpu(array_front& front) { front.cpu = 0; }

std::size_t pop_many(const array_front& front, void** objects, std::size_t count, std::uint64_t step) {
  for (;;) {
    if (const std::optional<std::size_t> moved = try_pop(front, objects, count, step)) return *moved;
  }
}

std::size_t push_many(const array_front& front, void* const* objects, std::size_t count) {
  for (;;) {
    if (const std::optional<std::size_t> moved = try_push(front, objects, count)) return *moved;
  }
}

void* pop(const array_front& front) {
  void* object = nullptr;
  return pop_many(front, &object, 1, cpu_array::get_step) == 1 ? object : nullptr;
}

bool push(const array_front& front, void* object) { return push_many(front, &object, 1) == 1; }

}  // namespace larder::os

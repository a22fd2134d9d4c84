// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/cpu_sequence.cc.
#include "os/cpu_sequence.h"

#include "base/mutant.h"
#include "base/schedule.h"
#include "os/cpu.h"
#include "tests/sched/engine.h"
#include "tests/sched/sequence.h"

namespace larder::os {
namespace {

using base::schedule::access;

using sched::sequence;

bool passes(sequence& mine, const base::atomic<std::uint64_t>& gate, std::uint64_t open) {
  return mine.reaches(&gate) && (mine.value_of(gate) == open || base::is_mutant(base::mutant::gate_ignored));
}

}  // namespace

sequence_mode sequences() {
  const sched::engine* running = sched::engine::running();
  return running != nullptr ? running->settings().sequences : sequence_mode::sharded;
}

const char* sequences_description() { return "scheduled"; }

int sequence_cpu() { return current_cpu(); }

bool find_sequence_cpu(std::uint32_t& cpu) {
  cpu = static_cast<std::uint32_t>(current_cpu());
  return true;
}

sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                              base::atomic<std::uint64_t>& word, std::uint64_t expected, std::uint64_t desired) {
  sequence mine;
  if (static_cast<std::uint32_t>(current_cpu()) != cpu) return sequence_result::restarted;
  if (!passes(mine, gate, open)) return sequence_result::restarted;
  if (!mine.reaches(&word)) return sequence_result::restarted;
  if (mine.value_of(word) != expected) return sequence_result::differs;
  if (!mine.reaches(&word, access::sequence_store)) return sequence_result::restarted;
  mine.store(word, desired);
  return sequence_result::done;
}

sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                              base::atomic<std::uint64_t>& word, std::uint64_t expected, std::uint64_t desired,
                              base::atomic<std::uint32_t>& place, std::uint32_t element) {
  sequence mine;
  if (static_cast<std::uint32_t>(current_cpu()) != cpu) return sequence_result::restarted;
  if (!passes(mine, gate, open)) return sequence_result::restarted;
  if (!mine.reaches(&word)) return sequence_result::restarted;
  if (mine.value_of(word) != expected) return sequence_result::differs;
  if (!mine.reaches(&place, access::sequence_store)) return sequence_result::restarted;
  mine.store(place, element);
  if (!mine.reaches(&word, access::sequence_store)) return sequence_result::restarted;
  mine.store(word, desired);
  return sequence_result::done;
}

sequence_result gated_compare_exchange(const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                                       base::atomic<std::uint64_t>& word, std::uint64_t expected,
                                       std::uint64_t desired) {
  sequence mine;
  if (!passes(mine, gate, open)) return sequence_result::restarted;
  if (!mine.reaches(&word)) return sequence_result::restarted;
  mine.flush();
  if (word.unscheduled() != expected) return sequence_result::differs;
  word.unscheduled() = desired;
  return sequence_result::done;
}

void fence_sequences() {
  base::schedule::point(nullptr, access::fence);
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->break_sequences();
}

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
//
// Takes the place of src/os/cpu_sequence.cc. A sequence is interrupted, and then does nothing, if since its beginning
// another logical thread ran on its virtual CPU, its thread was moved, or somebody fenced. Threads on other CPUs run
// between its steps as they do in earnest, so what is wrong without a fence goes wrong here.
#include "os/cpu_sequence.h"

#include "base/mutant.h"
#include "base/schedule.h"
#include "os/cpu.h"
#include "tests/sched/engine.h"

namespace larder::os {
namespace {

using base::schedule::access;

// A sequence in progress of the current logical thread; without a schedule (set-up, audit) nothing interferes.
class sequence {
 public:
  sequence() {
    if (engine_ != nullptr) engine_->begin_sequence();
  }
  ~sequence() {
    if (engine_ != nullptr) engine_->end_sequence();
  }
  sequence(const sequence&) = delete;
  sequence& operator=(const sequence&) = delete;

  // The next instruction touches `object`. False if the system has sent the thread to the abort address before it.
  bool reaches(const void* object, access how = access::sequence) {
    base::schedule::point(object, how);
    return engine_ == nullptr || engine_->sequence_intact();
  }

  std::uint64_t value_of(const base::atomic<std::uint64_t>& word) const {
    const void* own = engine_ != nullptr ? engine_->own_store(&word) : nullptr;
    return own != nullptr ? *static_cast<const std::uint64_t*>(own) : word.unscheduled();
  }
  bool passes(const base::atomic<std::uint64_t>& gate, std::uint64_t open) {
    return reaches(&gate) && (value_of(gate) == open || base::is_mutant(base::mutant::gate_ignored));
  }
  template <typename T>
  void store(base::atomic<T>& word, T desired) {
    if (engine_ == nullptr || !engine_->keeps_store(&word, &desired, sizeof desired)) word.unscheduled() = desired;
  }
  // A locked instruction follows: the thread's own stores go first.
  void flush() {
    if (engine_ != nullptr) engine_->flush_own_stores();
  }

 private:
  sched::engine* const engine_ = sched::engine::running();
};

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
  if (!mine.passes(gate, open)) return sequence_result::restarted;
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
  if (!mine.passes(gate, open)) return sequence_result::restarted;
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
  if (!mine.passes(gate, open)) return sequence_result::restarted;
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

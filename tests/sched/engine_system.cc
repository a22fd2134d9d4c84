// SPDX-License-Identifier: Apache-2.0
//
// The system under the code under test: sleeping and waking, sequences, store buffers, CPUs.
#include <array>
#include <utility>

#include "tests/sched/engine.h"

namespace larder::sched {

using base::schedule::access;

const void* engine::own_store(const void* object) const { return threads_[current_].buffer.newest(object); }

bool engine::keeps_store(void* object, const void* value, std::size_t size) {
  logical_thread& mine = threads_[current_];
  const bool chosen = std::exchange(mine.delays_store, false);
  if (!chosen && mine.buffer.empty()) return false;  // nor may it overtake what is there
  mine.buffer.add(object, value, size);
  return true;
}

bool engine::sleep(const void* word, time_point deadline) {
  if (current_ == outside) fail("set-up or audit sleeps");
  if (deadline <= clock_) return false;
  logical_thread& mine = threads_[current_];
  mine.asleep = true;
  mine.timed_out = false;
  mine.deadline = deadline;
  mine.next.object = word;
  mine.next.how = access::sleep;
  go_on();
  return !mine.timed_out;
}

void engine::wake_one(const void* word) {
  std::array<unsigned, threads_max> sleepers{};
  unsigned many = 0;
  for (unsigned number = 0; number < count_; ++number) {
    if (threads_[number].asleep && threads_[number].next.object == word) sleepers[many++] = number;
  }
  if (many == 0) return;
  logical_thread& chosen = threads_[sleepers[many == 1 ? 0 : pick(many)]];
  chosen.asleep = false;
  chosen.woken = true;
  chosen.next.object = nullptr;
  chosen.next.how = access::fence;
}

unsigned engine::pick(unsigned count) {
  if (current_ == outside) return 0;
  open_.count = 0;
  open_.may_continue = false;
  for (unsigned value = 0; value < count; ++value) {
    open_.add({.thread = static_cast<std::uint8_t>(current_),
               .what = action::kind::pick,
               .value = static_cast<std::uint8_t>(value)});
  }
  const action chosen = open_.options[decides_->choose(open_)];
  if (open_.count > 1) outcome_.schedule.push_back(chosen);
  return chosen.value;
}

void engine::begin_sequence() {
  threads_[current_].in_sequence = true;
  threads_[current_].interrupted = false;
}
bool engine::sequence_intact() { return !threads_[current_].interrupted; }
void engine::end_sequence() { threads_[current_].in_sequence = false; }
void engine::break_sequences() {
  for (unsigned number = 0; number < count_; ++number) {
    if (number != current_) threads_[number].interrupted = true;
    threads_[number].buffer.flush();
  }
}

unsigned engine::cpu() const { return threads_[current_].next.cpu; }
void engine::move_to_cpu(unsigned cpu) { threads_[current_].next.cpu = static_cast<std::uint8_t>(cpu); }
int* engine::locks_held() { return threads_[current_].locks.data(); }
void** engine::thread_slot() { return &threads_[current_].slot; }
os::parker& engine::parker() {
  logical_thread& mine = threads_[current_];
  return mine.replaced_parker != nullptr ? *mine.replaced_parker : *mine.parker;
}
void engine::set_parker(os::parker* replacement) { threads_[current_].replaced_parker = replacement; }

}  // namespace larder::sched

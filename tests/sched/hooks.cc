// SPDX-License-Identifier: Apache-2.0
//
// The scheduler's side of base/schedule.h and of what scenarios call.
#include <array>
#include <cstdarg>
#include <cstdio>

#include "base/lock_rank.h"
#include "base/mutant.h"
#include "base/schedule.h"
#include "tests/sched/engine.h"
#include "tests/sched/scenario.h"

namespace larder::base {

mutant active_mutant = mutant::none;

namespace schedule {

void point(const void* object, access how) {
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->point(object, how);
}

const void* load(const void* object) {
  sched::engine* running = sched::engine::running();
  if (running == nullptr) return nullptr;
  running->point(object, access::load);
  return running->own_store(object);
}

bool weak_store(void* object, const void* value, std::size_t size) {
  sched::engine* running = sched::engine::running();
  if (running == nullptr) return false;
  running->point(object, access::weak_store);
  return running->keeps_store(object, value, size);
}

void yield() {
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->yield();
}

void check_failed(const char* message) {
  if (sched::engine* running = sched::engine::running(); running != nullptr) running->fail(message);
}

int* locks_held() {
  static std::array<int, base::lock_ranks> outside{};
  sched::engine* running = sched::engine::running();
  return running != nullptr ? running->locks_held() : outside.data();
}

void** thread_slot() {
  static void* outside = nullptr;
  sched::engine* running = sched::engine::running();
  return running != nullptr ? running->thread_slot() : &outside;
}

}  // namespace schedule
}  // namespace larder::base

namespace larder::sched {

void require(bool condition, const char* format, ...) {
  if (condition) return;
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  engine::running()->fail(message);
}

void move_to_cpu(unsigned cpu) { engine::running()->move_to_cpu(cpu); }

}  // namespace larder::sched

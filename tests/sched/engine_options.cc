// SPDX-License-Identifier: Apache-2.0
//
// What can happen next, and what it does.
#include <algorithm>

#include "tests/sched/engine.h"

namespace larder::sched {

using base::schedule::access;

bool engine::can_run(const logical_thread& thread) const {
  if (thread.ended || thread.asleep) return false;
  return thread.next.how != access::lock || !*static_cast<const bool*>(thread.next.object);
}

void engine::list_options(unsigned from) {
  open_.count = 0;
  const auto add_run = [this](unsigned number) { open_.add({.thread = static_cast<std::uint8_t>(number)}); };
  if (from != outside && can_run(threads_[from]) && !threads_[from].yielded) add_run(from);
  open_.may_continue = open_.count > 0;
  for (unsigned number = 0; number < count_; ++number) {
    if (number != from && can_run(threads_[number]) && !threads_[number].yielded) add_run(number);
  }
  for (unsigned number = 0; number < count_; ++number) {
    const logical_thread& each = threads_[number];
    if (each.asleep && each.deadline != no_deadline) {
      open_.add({.thread = static_cast<std::uint8_t>(number), .what = action::kind::expire});
    }
  }
  for (unsigned number = 0; number < count_; ++number) {
    if (!threads_[number].buffer.empty()) {
      open_.add({.thread = static_cast<std::uint8_t>(number), .what = action::kind::flush});
    }
  }
  if (open_.count == 0) {  // those that yielded, in vain
    for (unsigned number = 0; number < count_; ++number) {
      if (can_run(threads_[number])) add_run(number);
    }
  }
  if (open_.count == 0) fail_for_deadlock();
  list_interference();
}

void engine::list_interference() {
  const unsigned runs = open_.count;
  for (unsigned number = 0; spurious_left_ > 0 && number < count_; ++number) {
    if (threads_[number].asleep) {
      open_.add({.thread = static_cast<std::uint8_t>(number), .what = action::kind::spurious});
    }
  }
  for (unsigned i = 0; i < runs; ++i) {
    const action run = open_.options[i];
    const operation& next = threads_[run.thread].next;
    if (run.what != action::kind::run) continue;
    const bool is_weak = next.how == access::weak_store || next.how == access::sequence_store;
    if (is_weak && delays_left_ > 0) open_.add({.thread = run.thread, .what = action::kind::delay});
    if (!is_sequence(next.how)) continue;
    if (restarts_left_ > 0) open_.add({.thread = run.thread, .what = action::kind::restart});
    for (unsigned cpu = 0; migrations_left_ > 0 && cpu < settings_.cpus; ++cpu) {
      if (cpu == next.cpu) continue;
      open_.add({.thread = run.thread, .what = action::kind::migrate, .value = static_cast<std::uint8_t>(cpu)});
    }
  }
}

void engine::apply(const action& chosen) {
  logical_thread& next = threads_[chosen.thread];
  switch (chosen.what) {
    case action::kind::run:
    case action::kind::flush:
    case action::kind::pick:
      break;
    case action::kind::expire:
      clock_ = std::max(clock_, next.deadline);
      next.asleep = false;
      next.timed_out = true;
      note(next, "deadline passes", nullptr);
      break;
    case action::kind::spurious:
      --spurious_left_;
      next.asleep = false;
      note(next, "wakes for no reason", nullptr);
      break;
    case action::kind::migrate:
      --migrations_left_;
      next.next.cpu = chosen.value;
      next.buffer.flush();
      next.interrupted = true;
      note(next, "is moved to another CPU", nullptr);
      break;
    case action::kind::restart:
      --restarts_left_;
      next.interrupted = true;
      note(next, "is interrupted", nullptr);
      break;
    case action::kind::delay:
      --delays_left_;
      next.delays_store = true;
      note(next, "keeps in its buffer:", nullptr);
      break;
  }
  for (unsigned number = 0; number < count_; ++number) {
    logical_thread& each = threads_[number];
    if (&each == &next) continue;
    each.yielded = false;
    if (each.next.cpu != next.next.cpu) continue;
    if (each.in_sequence) each.interrupted = true;  // preempted
    each.buffer.flush();                            // one processor sees its own stores
  }
  next.yielded = false;
  current_ = chosen.thread;
}

}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// A worker's rounds are run_queue's. It sleeps in the kernel, in the same call that submits what tasks prepared; a wake
// is an event that the ring reads.
#include "task/worker.h"

namespace larder::task_layer {

worker::worker(shared_state& shared, unsigned number, unsigned ring_entries)
    : shared_(shared), number_(number), ring_entries_(ring_entries) {}

worker::~worker() = default;

result<void> worker::start(const char* name) {
  os::parker& starter = os::parker::current();
  base::atomic<bool> tried{false};
  std::error_code failure;
  auto thread = os::thread::start(name, [this, &starter, &tried, &failure] {
    auto made = os::ring::create(ring_entries_);
    const bool ready = static_cast<bool>(made);
    if (ready) {
      ring_ = std::move(*made);
    } else {
      failure = made.error();
    }
    os::parker& to_tell = starter;
    tried = true;  // `failure` and `ring_` before it; the captures are gone after it
    to_tell.unpark();
    if (!ready) return;
    run();
    // It has seen that no task is left; the others may sleep.
    for (const auto& other : shared_.workers) {
      if (other.get() != this && other->ring_ != nullptr) other->wake();
    }
  });
  if (!thread) return thread.error();
  thread_ = std::move(*thread);
  while (!tried) starter.park();
  if (failure) {
    thread_.join();
    return failure;
  }
  return {};
}

// A sum of counts that only grow. Who starts a task counts it before the task can end, and who reads an end sees all
// that came before it. So what is read of the ends first is no more than what had been started by then; and if it is
// as much, there was no task then.
std::uint64_t shared_state::live() const {
  std::uint64_t ended = 0;
  for (const auto& each : workers) ended += each->ended();
  return started() - ended;
}

std::uint64_t shared_state::started() const {
  std::uint64_t sum = started_outside;
  for (const auto& each : workers) sum += each->started();
  return sum;
}

// Of workers that end their last tasks at the same time, the one whose look comes later sees the other's count: the
// looks are in order by an atomic operation.
bool worker::may_end() {
  if (!shared_.stopping) return false;
  ++shared_.looks_for_the_end;
  return shared_.live() == 0;
}

void worker::finish(task_block& ended) {
  completion* shared = ended.completion;
  ended.completion = nullptr;
  ended.parker.cancel = nullptr;
  ended.parker.lives_in.store(nullptr, base::memory_order_relaxed);  // a report may show it for a moment still
  shared_.stacks->put(&ended);
  // Before the joiner is told: it must not count the task any more. This worker still runs, so the runtime stays.
  add_one(ended_);
  if (shared != nullptr) shared->finish();
}

}  // namespace larder::task_layer

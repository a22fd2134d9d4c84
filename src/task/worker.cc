// SPDX-License-Identifier: Apache-2.0
//
// A worker's rounds are run_queue's. It sleeps in the kernel, in the same call that submits what tasks prepared; a wake
// is an event that the ring reads.
#include "task/worker.h"

namespace larder::task_layer {

worker::worker(shared_state& shared, unsigned number, unsigned ring_entries)
    : shared_(shared), number_(number), ring_entries_(ring_entries) {}

worker::~worker() { wait_for_visitors(); }

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
    if (ready) run();
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

void worker::finish(task_block& ended) {
  completion* shared = ended.completion;
  ended.completion = nullptr;
  ended.parker.cancel = nullptr;
  // Before the joiner is told: it must not count the task any more. This worker still runs, so the runtime stays.
  const bool last = --shared_.live == 0;
  shared_.stacks->put(&ended);
  if (shared != nullptr) shared->finish();
  // The last one out, when the runtime is going, lets the other workers go too.
  if (last && shared_.stopping) {
    for (const auto& other : shared_.workers) {
      if (other.get() != this) other->wake();
    }
  }
}

}  // namespace larder::task_layer

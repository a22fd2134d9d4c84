// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <larder/runtime.h>

#include "base/atomic.h"
#include "coro/stack_cache.h"
#include "os/ring.h"
#include "os/thread.h"
#include "task/completion.h"
#include "task/helper_pool.h"
#include "task/run_queue.h"

namespace larder::task_layer {

class worker;

// What the workers of a runtime share.
struct shared_state {
  std::unique_ptr<coro::stack_cache<task_block>> stacks;
  base::atomic<std::uint64_t> started_outside{0};  // tasks, by who is none of its workers
  base::atomic<bool> stopping{false};
  base::atomic<unsigned> looks_for_the_end{0};

  // Tasks that were started; those that have not ended. Each worker counts its own, so these are sums; the second is
  // never less than it was at the call.
  std::uint64_t started() const;
  std::uint64_t live() const;
  std::vector<std::unique_ptr<worker>> workers;
  queue_group group;
  runtime* owner = nullptr;
  std::unique_ptr<helper_pool> helpers;
};

// A thread that runs tasks, and sleeps in an io_uring. All but `make_ready` and `wake` is for that thread, and so for
// its tasks.
class worker final : public run_queue {
 public:
  worker(shared_state& shared, unsigned number, unsigned ring_entries);
  ~worker();

  void join_group() { run_queue::join_group(shared_.group); }
  // Starts the thread; returns when its ring is ready, or the error.
  result<void> start(const char* name);
  void join() { thread_.join(); }
  // Once all are joined, for all before one of them goes.
  void wait_for_visitors() { run_queue::wait_for_visitors(); }

  // The worker that the calling thread is, or null.
  static worker* current() { return static_cast<worker*>(run_queue::current()); }
  os::ring& ring() { return *ring_; }
  unsigned number() const { return number_; }

  // The calling task has started another.
  void count_start() { add_one(started_); }
  std::uint64_t started() const { return started_.load(base::memory_order_acquire); }
  std::uint64_t ended() const { return ended_.load(base::memory_order_acquire); }
  runtime& owner() const { return *shared_.owner; }
  helper_pool& helpers() const { return *shared_.helpers; }

  void wake() override { ring_->wake(); }

 private:
  void wait(time_point deadline) override { ring_->run(true, deadline); }
  void look() override { ring_->look(); }
  bool may_end() override;
  void finish(task_block& ended) override;

  // Only the owner adds: no atomic operation is needed.
  static void add_one(base::atomic<std::uint64_t>& count) {
    count.store(count.load(base::memory_order_relaxed) + 1, base::memory_order_release);
  }

  shared_state& shared_;
  base::atomic<std::uint64_t> started_{0};
  base::atomic<std::uint64_t> ended_{0};  // here, wherever they were started
  const unsigned number_;
  const unsigned ring_entries_;
  std::unique_ptr<os::ring> ring_;
  os::thread thread_;
};

}  // namespace larder::task_layer

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <larder/export.h>
#include <larder/units.h>
#include <larder/wait_queue.h>

namespace larder {

// A count of units that tasks and threads take and give: a task that must wait is parked, a thread sleeps. First come,
// first served: a request waits for all its units at once, and nobody overtakes it, so a large one is not starved by
// small ones. (Dijkstra's P and V, in any number.)
class LARDER_API semaphore {
 public:
  // With so many units free.
  explicit semaphore(std::uint64_t units = 0) : free_(units) {}
  // Dies if anybody waits. Units may be out.
  ~semaphore();
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  // Takes `units`; waits for them if it must. Nothing is taken for 0, at once.
  void acquire(std::uint64_t units = 1);
  // False, and nothing taken, if they are not free or somebody waits already.
  bool try_acquire(std::uint64_t units = 1);
  // False, and nothing taken, if the deadline came first: then who stood behind it goes on. A deadline that has passed
  // makes it try_acquire.
  bool try_acquire_until(time_point deadline, std::uint64_t units = 1);
  // Gives `units`, from anybody, whether they were taken or not. Dies if the count would pass 2^64 - 1.
  void release(std::uint64_t units = 1);

  // Free at this moment.
  std::uint64_t units_free() const;

 private:
  void serve_waiting();

  mutable sync::short_lock guard_;
  std::uint64_t free_;          // guarded by guard_
  sync::waiter_queue waiting_;  // guarded by guard_; the first wants more than free_
};

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <larder/result.h>
#include <larder/units.h>

#include "os/file.h"

struct io_uring;
struct io_uring_sqe;

namespace larder::os {

// An operation under way in a ring. Its owner keeps it alive until `complete` has been called, once, on the ring's
// thread, with the result of the call or minus an error number.
struct ring_operation {
  void (*complete)(ring_operation& self, int outcome) = nullptr;
};

// An io_uring of one thread. Only the thread that created it calls it, but for `wake`, which any thread may.
class ring {
 public:
  // ENOSYS or EPERM where the system has or allows no io_uring. `entries` operations can be prepared between two
  // submissions; any number can be under way.
  static result<std::unique_ptr<ring>> create(unsigned entries);
  ~ring();
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;

  // What `create` will map and the kernel will pin for a ring of that many entries.
  static bytes memory_of(unsigned entries);

  // How many more operations can be prepared before some have to be submitted.
  unsigned room() const;

  // These prepare; `run` submits. The vectors live until the completion.
  void read(int file, std::span<const iovec> into, std::uint64_t offset, ring_operation& operation);
  void write(int file, std::span<const iovec> from, std::uint64_t offset, ring_operation& operation);
  void sync_data(int file, ring_operation& operation);
  // As os::zero_range.
  void zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks, ring_operation& operation);
  // Completes once with the events that are there (events.h), at once if they are.
  void poll(int file, unsigned events, ring_operation& operation);
  void accept(int listener, ring_operation& operation);
  // Asks that an operation end early: its own completion tells (ECANCELED), `cancelling`'s that the request was seen.
  void cancel(ring_operation& operation, ring_operation& cancelling);

  // Submits what was prepared and calls `complete` for everything finished. With `wait`, sleeps until there is at least
  // one completion, a wake or the deadline. Returns how many completions there were, a wake counted as one.
  unsigned run(bool wait, time_point deadline);

  // Submits what was prepared, if anything was, and calls `complete` for what has finished. No system call if there is
  // neither.
  void look();

  // Ends the sleep of the ring's thread, now or the next one. Any thread.
  void wake();

 private:
  explicit ring(descriptor event);
  io_uring_sqe* next_entry();
  bool injected(ring_operation& operation, bool fires);
  void arm_wake();
  unsigned reap();

  struct wake_operation;
  struct injected_completion {
    ring_operation* operation;
    int outcome;
  };

  std::unique_ptr<io_uring> ring_;
  descriptor event_;
  std::unique_ptr<wake_operation> wake_;
  std::vector<injected_completion> injected_;  // failures that a test asked for, told at the next run; else empty
  bool started_ = false;                       // ring_ is set up
};

}  // namespace larder::os

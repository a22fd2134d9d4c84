// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <larder/result.h>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "os/parker.h"
#include "os/thread.h"

namespace larder::task_layer {

// Threads that make calls for tasks, which park meanwhile: for what blocks in the system. There are as many as there
// were calls at once, up to a limit; beyond it calls wait for their turn, first come first served. One that has had
// nothing to do for a while ends; the most recently idle is used first, so the others come to that.
class helper_pool {
 public:
  // `name` with a number is the threads' name.
  helper_pool(std::string name, unsigned helpers_max, std::chrono::nanoseconds idle_max = std::chrono::seconds(10));
  // No call is under way. Ends the threads and waits for them.
  virtual ~helper_pool();
  helper_pool(const helper_pool&) = delete;
  helper_pool& operator=(const helper_pool&) = delete;

  // Has `run(argument)`, which must not throw, called by a helper, and parks until it has returned. EAGAIN or ENOMEM
  // if there is no helper and the system has no room for a thread: then it was not called. Any thread.
  result<void> call(void (*run)(void*), void* argument);

  // Those that have not ended, and those of them that have nothing to do.
  std::size_t helpers() const;
  std::size_t idle_helpers() const;

 protected:
  struct helper;
  // Has a thread call serve(), or gives the error.
  virtual result<void> start(helper& one);
  virtual void join(helper& one);
  void serve(helper& self);
  // What the destructor does; heirs call it before they go.
  void end();

 private:
  struct pending;

  bool give_to_idle(pending& one);
  void start_for(pending& first, std::uint64_t number);
  pending* next_call(helper& self);
  void join_ended();

  const std::string name_;
  const unsigned helpers_max_;
  const std::chrono::nanoseconds idle_max_;

  mutable base::mutex guard_{base::lock_rank::helper_pool};
  base::intrusive_list<pending> waiting_;  // guarded by guard_, like all below; empty while a helper is idle
  base::intrusive_list<helper> idle_;      // most recently idle first
  base::intrusive_list<helper> ended_;     // not joined yet
  unsigned starting_ = 0;                  // will be running, or fail to start
  unsigned running_ = 0;                   // will look at the queue before they end
  std::uint64_t started_ = 0;              // ever
  os::parker* ender_ = nullptr;            // who waits for the end of all; then idle ones end
};

struct helper_pool::helper : base::list_link<> {
  os::thread thread;
  std::uint64_t number = 0;
  os::parker* parker = nullptr;  // its thread's, once that runs
  pending* given = nullptr;      // guarded by guard_, once it runs: the next call it makes
  bool known = false;            // guarded by guard_: `thread` is set
  bool ended = false;            // guarded by guard_
};

}  // namespace larder::task_layer

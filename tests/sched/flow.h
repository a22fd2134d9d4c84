// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "base/sanitizers.h"
#include "coro/context.h"

namespace larder::sched {

// A flow of control on a pooled stack: a logical thread's, or the one that sets up and audits. A default one stands for
// whoever runs the engine.
class flow {
 public:
  flow() = default;
  flow(const flow&) = delete;
  flow& operator=(const flow&) = delete;

  // The next switch to this flow calls `begin(argument)`, which never returns.
  void start(void (*begin)(void*), void* argument);
  // Suspends the caller, which is `from`; `ends` if it will not be switched to again.
  static void switch_over(flow& from, flow& to, bool ends = false);
  // First thing on a new stack.
  static void arrive_first();
  // Lets the stack stand as it is, for good, with all that it refers to; the next start takes another.
  void give_up_stack();
  // Dies if the flow has used all of its stack.
  void check_stack() const;

 private:
  coro::context context_;
  std::byte* stack_ = nullptr;
#if defined(LARDER_ADDRESS_SANITIZER)
  void arrive();
  void* fake_stack_ = nullptr;
  const void* bounds_low_ = nullptr;  // of the stack that it is suspended on
  std::size_t bounds_size_ = 0;
#endif
};

}  // namespace larder::sched

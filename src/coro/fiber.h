// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/units.h>

#include "base/sanitizers.h"
#include "coro/context.h"

namespace larder::coro {

// A flow of control on a stack of its own that others resume and that suspends itself: what coroutines and tasks are
// built on. It is built once with its stack and started any number of times. One thread at a time uses it; which thread
// may change between two resumes.
class fiber : public detail::fiber_core {
 public:
  using body = void (*)(void* argument);

  // `low` to the fiber itself is its stack: the fiber stands at the upper end.
  explicit fiber(std::byte* stack_low);
  ~fiber();
  fiber(const fiber&) = delete;
  fiber& operator=(const fiber&) = delete;

  // The next resume calls `run(argument)`, on what is left of the stack below `top`. The fiber is not under way.
  void start(body run, void* argument, std::byte* top);

  // Runs it until it suspends or ends. On any thread or fiber, but itself.
  void resume();

  // Goes back to the resumer. On this fiber, or on one that it resumed, only.
  void suspend();

  // Forgets a start that no resume has followed.
  void abandon();

  bool finished() const { return now == phase::idle; }
  bool running() const { return now == phase::running; }
  std::byte* stack_low() const { return stack_low_; }
  bytes stack_size() const {
    return {static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(this) - stack_low_)};
  }

  const char* name = "";  // outlives the fiber's use

 private:
  static void begin(void* self);
  [[noreturn]] void end();
  // What a sanitizer must be told of a start, an end, and before and after each switch. Nothing in other builds.
  void begin_use();
  void end_use();
  void leave_for_fiber();
  void arrive_at_fiber();
  void leave_for_resumer(bool for_ever);
  void arrive_at_resumer();

  body run_ = nullptr;
  void* argument_ = nullptr;
  std::byte* const stack_low_;

#if defined(LARDER_ADDRESS_SANITIZER)
  void* own_fake_stack_ = nullptr;
  void* resumer_fake_stack_ = nullptr;
  const void* resumer_stack_low_ = nullptr;
  std::size_t resumer_stack_size_ = 0;
  // Where it suspended itself: on its own stack, or on that of a fiber that it resumed.
  const void* suspended_stack_low_ = nullptr;
  std::size_t suspended_stack_size_ = 0;
#endif
#if defined(LARDER_THREAD_SANITIZER)
  void* own_thread_ = nullptr;
  void* resumer_thread_ = nullptr;
  void* suspended_thread_ = nullptr;  // where it suspended itself: its own, or that of a fiber that it resumed
#endif
};

}  // namespace larder::coro

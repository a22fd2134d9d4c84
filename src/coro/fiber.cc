// SPDX-License-Identifier: Apache-2.0
//
// A fiber is a context with an end and with what the tools around it must know: the sanitizers are told of each switch,
// and the C++ runtime's list of exceptions in flight, which it keeps by thread, travels with the fiber.
#include "coro/fiber.h"

#include <cxxabi.h>

#include <utility>

#include "base/check.h"
#include "coro/overflow.h"

#if defined(LARDER_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(LARDER_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace larder {

namespace detail {

#if LARDER_INLINE_SWITCHES
constinit thread_local thread_record larder_thread_record;
#else
[[gnu::noinline]] thread_record& this_thread() {
  constinit static thread_local thread_record mine;
  // A compiler that saw what is returned would put that in the place of the call, once for both sides of a switch.
  thread_record* here = &mine;
  asm volatile("" : "+r"(here) : : "memory");
  return *here;
}
#endif

constinit exceptions_in_flight thread_record::unknown_exceptions{nullptr, 1};

void fiber_core::exchange_exceptions(thread_record& here) {
  if (here.exceptions == &thread_record::unknown_exceptions) {
    here.exceptions = reinterpret_cast<exceptions_in_flight*>(abi::__cxa_get_globals());
    coro::prepare_thread_for_overflow();
  }
  std::swap(here.exceptions->caught, exceptions.caught);
  std::swap(here.exceptions->uncaught, exceptions.uncaught);
  holds_exceptions = exceptions.any();
}

}  // namespace detail

namespace coro {

// What follows is inlined into `resume` and `suspend` for the thread sanitizer's sake, which counts calls by fiber: a
// function that it enters on one and leaves on another unbalances both.
#if defined(LARDER_ADDRESS_SANITIZER)

[[gnu::always_inline]] inline void fiber::begin_use() {
  suspended_stack_low_ = stack_low_;
  suspended_stack_size_ = static_cast<std::size_t>(reinterpret_cast<std::byte*>(this) - stack_low_);
}
[[gnu::always_inline]] inline void fiber::end_use() {
  // Frames that never returned left their red zones behind; the next one to run here must not meet them.
  own_fake_stack_ = nullptr;
  __asan_unpoison_memory_region(stack_low_, static_cast<std::size_t>(reinterpret_cast<std::byte*>(this) - stack_low_));
}
[[gnu::always_inline]] inline void fiber::leave_for_fiber() {
  __sanitizer_start_switch_fiber(&resumer_fake_stack_, suspended_stack_low_, suspended_stack_size_);
}
[[gnu::always_inline]] inline void fiber::arrive_at_fiber() {
  __sanitizer_finish_switch_fiber(own_fake_stack_, &resumer_stack_low_, &resumer_stack_size_);
}
[[gnu::always_inline]] inline void fiber::leave_for_resumer(bool for_ever) {
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &own_fake_stack_, resumer_stack_low_, resumer_stack_size_);
}
[[gnu::always_inline]] inline void fiber::arrive_at_resumer() {
  __sanitizer_finish_switch_fiber(resumer_fake_stack_, &suspended_stack_low_, &suspended_stack_size_);
}

#elif defined(LARDER_THREAD_SANITIZER)

// A new one for each use: the frames of the last, which never returned, still stand in the old one's account.
[[gnu::always_inline]] inline void fiber::begin_use() { suspended_thread_ = own_thread_ = __tsan_create_fiber(0); }
[[gnu::always_inline]] inline void fiber::end_use() { __tsan_destroy_fiber(own_thread_); }
[[gnu::always_inline]] inline void fiber::leave_for_fiber() {
  resumer_thread_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(suspended_thread_, 0);
}
[[gnu::always_inline]] inline void fiber::arrive_at_fiber() {}
[[gnu::always_inline]] inline void fiber::leave_for_resumer(bool) {
  suspended_thread_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(resumer_thread_, 0);
}
[[gnu::always_inline]] inline void fiber::arrive_at_resumer() {}

#else

[[gnu::always_inline]] inline void fiber::begin_use() {}
[[gnu::always_inline]] inline void fiber::end_use() {}
[[gnu::always_inline]] inline void fiber::leave_for_fiber() {}
[[gnu::always_inline]] inline void fiber::arrive_at_fiber() {}
[[gnu::always_inline]] inline void fiber::leave_for_resumer(bool) {}
[[gnu::always_inline]] inline void fiber::arrive_at_resumer() {}

#endif

fiber::fiber(std::byte* stack_low) : stack_low_(stack_low) {}

fiber::~fiber() { LARDER_CHECK(finished(), "a coroutine or task is destroyed while it is under way"); }

void fiber::start(body run, void* argument, std::byte* top) {
  LARDER_ASSERT(finished(), "a fiber is started while it is under way");
  run_ = run;
  argument_ = argument;
  own = make_context(top, begin, this);
  inner = this;
  now = phase::fresh;
  begin_use();
}

void fiber::abandon() {
  now = phase::idle;
  end_use();
}

void fiber::resume() {
  LARDER_CHECK(can_be_resumed(), "resume of a coroutine that %s", running() ? "runs" : "has finished");
  begin_resume();
  leave_for_fiber();
  switch_context(resumer, own);
  arrive_at_resumer();
  end_resume();
  if (finished()) end_use();
}

void fiber::suspend() {
  now = phase::suspended;
  leave_for_resumer(false);
  switch_context(own, resumer);
  arrive_at_fiber();
}

void fiber::begin(void* self) {
  auto* mine = static_cast<fiber*>(self);
  mine->arrive_at_fiber();
  mine->run_(mine->argument_);
  mine->end();
}

void fiber::end() {
  now = phase::idle;
  leave_for_resumer(true);
  switch_context(own, resumer);
  base::die(__FILE__, __LINE__, "a finished fiber was resumed");
}

}  // namespace coro
}  // namespace larder

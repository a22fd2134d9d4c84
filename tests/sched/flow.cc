// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/flow.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "base/check.h"

#if defined(LARDER_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace larder::sched {
namespace {

// Room for a test's own printing, and for the wide frames of a sanitized build.
constexpr std::size_t stack_size = 256 * 1024;
constexpr std::uint64_t canary = 0x6c61'7264'6572'7363;

// From the C++ heap and never freed: the leak checker follows what abandoned stacks refer to.
std::vector<std::byte*>& all_stacks() {
  static auto* stacks = new std::vector<std::byte*>;
  return *stacks;
}

std::byte* new_stack() {
  auto* stack = static_cast<std::byte*>(::operator new (stack_size, std::align_val_t{4096}));
  std::memcpy(stack, &canary, sizeof canary);
  all_stacks().push_back(stack);
  return stack;
}

#if defined(LARDER_ADDRESS_SANITIZER)
flow* left = nullptr;  // the flow that was switched away from last
#endif

}  // namespace

void flow::start(void (*begin)(void*), void* argument) {
  if (stack_ == nullptr) stack_ = new_stack();
#if defined(LARDER_ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(stack_, stack_size);
  fake_stack_ = nullptr;
  bounds_low_ = stack_;
  bounds_size_ = stack_size;
#endif
  context_ = coro::make_context(stack_ + stack_size, begin, argument);
}

#if defined(LARDER_ADDRESS_SANITIZER)

void flow::switch_over(flow& from, flow& to, bool ends) {
  left = &from;
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack_, to.bounds_low_, to.bounds_size_);
  coro::switch_context(from.context_, to.context_);
  from.arrive();
}
void flow::arrive() { __sanitizer_finish_switch_fiber(fake_stack_, &left->bounds_low_, &left->bounds_size_); }
void flow::arrive_first() { __sanitizer_finish_switch_fiber(nullptr, &left->bounds_low_, &left->bounds_size_); }

#else

void flow::switch_over(flow& from, flow& to, bool) { coro::switch_context(from.context_, to.context_); }
void flow::arrive_first() {}

#endif

void flow::give_up_stack() { stack_ = nullptr; }

void flow::check_stack() const {
  LARDER_CHECK(stack_ == nullptr || std::memcmp(stack_, &canary, sizeof canary) == 0,
               "a logical thread has used all of its stack of %zu bytes", stack_size);
}

}  // namespace larder::sched

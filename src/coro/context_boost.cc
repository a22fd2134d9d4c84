// SPDX-License-Identifier: Apache-2.0
//
// The context switch of Boost.Context, for processors that Larder has none of its own for, and for who prefers it.
//
// Boost's jump_fcontext does not store where the one who leaves is suspended: it hands that to the one who goes on,
// beside a pointer. So that pointer tells of the crossing, and the one who goes on stores, for the one who left, before
// it does anything else. A context that begins arrives by a crossing, too, but in a function of ours instead of behind
// a jump: it finds what to call through the context that was loaded.
#include "base/check.h"
#include "coro/context.h"

#if LARDER_BOOST_CONTEXT

#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <new>

#include <boost/context/detail/fcontext.hpp>

namespace larder {
namespace {

using boost::context::detail::transfer_t;

// On the stack of the one who leaves, who is suspended there while it is looked at.
struct crossing {
  detail::context* left;
  const detail::context* entered;
};

// How numbers are rounded and which errors trap. For x86-64 Boost.Context keeps that; for some other processors it
// leaves it to the thread.
#if defined(__x86_64__)
struct floating_point_control {
  void restore() const {}
};
#else
class floating_point_control {
 public:
  floating_point_control() { std::fegetenv(&kept_); }
  void restore() const { std::fesetenv(&kept_); }

 private:
  std::fenv_t kept_;
};
#endif

// At the upper end of a new context's stack.
struct alignas(16) beginning {
  void (*call)(void*);
  void* argument;
  floating_point_control control;
};

const crossing& arrive(transfer_t from) {
  const auto* over = static_cast<const crossing*>(from.data);
  over->left->suspended = from.fctx;
  return *over;
}

// Unwinding ends behind this: no caller is known of it.
void begin(transfer_t from) {
  const auto* mine = static_cast<const beginning*>(arrive(from).entered->beginning);
  mine->control.restore();
  mine->call(mine->argument);
  base::die(__FILE__, __LINE__, "a context's first function has returned");
}

}  // namespace

void detail::switch_context(context& save, const context& load) {
  const floating_point_control control;
  crossing over{&save, &load};
  arrive(boost::context::detail::jump_fcontext(load.suspended, &over));
  control.restore();
}

coro::context coro::make_context(void* top, void (*begin_with)(void*), void* argument) {
  LARDER_ASSERT(reinterpret_cast<std::uintptr_t>(top) % 16 == 0, "a stack's top %p is not aligned to 16", top);
  auto* entry = new (static_cast<std::byte*>(top) - sizeof(beginning)) beginning{begin_with, argument, {}};
  // What Boost.Context has for Linux looks at a stack's upper end alone, and not at its size.
  return {boost::context::detail::make_fcontext(entry, 0, begin), entry};
}

}  // namespace larder

#endif

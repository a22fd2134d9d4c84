// SPDX-License-Identifier: Apache-2.0
//
// A coroutine is a fiber with a closure, an exception to hand over, and a way to be ended early. Its stack comes from
// the process's cache of its size class (stack_cache.h); the state stands at the upper end of the stack, so one object
// is all there is to take and to give back.
#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <stdexcept>

#include <larder/coroutine.h>

#include "base/check.h"
#include "coro/fiber.h"
#include "coro/innermost.h"
#include "coro/stack_cache.h"
#include "os/parker.h"

namespace larder {

namespace coro {
namespace {

thread_local void* innermost = nullptr;

}  // namespace

// Out of line, so that no code keeps the address of the thread-local over a switch to another thread (KF-34).
[[gnu::noinline]] void* innermost_coroutine() { return innermost; }
[[gnu::noinline]] void set_innermost_coroutine(void* state) { innermost = state; }

}  // namespace coro

struct coroutine::state : coro::fiber {
  explicit state(std::byte* stack_low) : fiber(stack_low) {}

  coro::stack_cache<state>* home = nullptr;  // where it goes back to
  const char* name = "";
  void* closure = nullptr;
  std::byte* top = nullptr;  // of the stack below the closure
  void (*run)(void*) = nullptr;
  void (*discard)(void*) = nullptr;  // destroys a closure that never ran
  std::exception_ptr thrown;
  state* outer = nullptr;  // the coroutine that resumed this one
  bool started = false;
  bool cancelling = false;
};

namespace {

constexpr std::size_t smallest_stack = 16U << 10;
constexpr std::size_t classes = 7;  // 16 KiB, 32 KiB … 1 MiB
// Others may take what was reclaimed before it is used: a few times, no more, because a stack that the system refuses
// comes back as reclaimed memory each time.
constexpr int reclaim_attempts = 4;

}  // namespace

// The caches of the process, one per class, made on first need and never destroyed: a coroutine with static storage may
// be the last thing to go.
template <typename State>
static coro::stack_cache<State>& cache_of(bytes stack_size) {
  static std::array<coro::stack_cache<State>*, classes> caches{};
  static std::array<std::once_flag, classes> made;
  const std::size_t size = std::max(std::bit_ceil(stack_size.count), smallest_stack);
  const auto which = static_cast<std::size_t>(std::countr_zero(size / smallest_stack));
  std::call_once(made[which], [&] {
    auto cache = coro::stack_cache<State>::create("coroutines/" + format_bytes({size}), {.stack_size = {size}});
    if (!cache) throw std::bad_alloc();
    caches[which] = cache->release();
  });
  return *caches[which];
}

void* coroutine::prepare(options chosen, std::size_t closure_size, std::size_t closure_alignment) {
  if (chosen.stack_size > stack_size_max) {
    throw std::invalid_argument("larder::coroutine: a stack of " + format_bytes(chosen.stack_size) +
                                " is more than the largest, 1M");
  }
  coro::stack_cache<state>& cache = cache_of<state>(chosen.stack_size);
  state_ = cache.try_get();
  if (state_ == nullptr && !os::parker::current().reclaiming) {
    const bytes slab = cache.cache().stats().slab_bytes;
    for (int attempt = 0; attempt < reclaim_attempts && state_ == nullptr; ++attempt) {
      if (memory_budget::process().reclaim(slab) == bytes{0}) break;
      state_ = cache.try_get();
    }
  }
  if (state_ == nullptr) throw std::bad_alloc();
  state_->home = &cache;
  state_->name = chosen.name;
  const auto end = reinterpret_cast<std::uintptr_t>(state_) - closure_size;
  auto* place = reinterpret_cast<std::byte*>(end & ~(std::uintptr_t{closure_alignment} - 1));
  state_->top = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(place) & ~std::uintptr_t{15});
  return place;
}

void coroutine::begin(void* closure, void (*run)(void*), void (*discard)(void*)) {
  state_->closure = closure;
  state_->run = run;
  state_->discard = discard;
  state_->started = false;
  state_->cancelling = false;
  state_->start(
      [](void* argument) {
        auto* self = static_cast<state*>(argument);
        try {
          self->run(self->closure);
        } catch (const cancelled&) {
          if (!self->cancelling) self->thrown = std::current_exception();
        } catch (...) {
          self->thrown = std::current_exception();
        }
      },
      state_, state_->top);
}

coroutine& coroutine::operator=(coroutine&& other) noexcept {
  coroutine taken(std::move(other));
  std::swap(state_, taken.state_);
  return *this;
}

coroutine::~coroutine() {
  if (state_ == nullptr) return;
  LARDER_CHECK(!state_->running(), "coroutine \"%s\" is destroyed while it runs", state_->name);
  if (!state_->finished()) {
    if (state_->started) {
      state_->cancelling = true;
      // A coroutine that swallows `cancelled` and yields again gets it again.
      while (!state_->finished()) resume();
    } else {
      state_->discard(state_->closure);
      state_->abandon();
    }
  }
  state_->thrown = nullptr;
  state_->home->put(state_);
}

void coroutine::resume() {
  LARDER_CHECK(state_ != nullptr, "resume of a coroutine that was moved from");
  state& self = *state_;
  LARDER_CHECK(!self.finished(), "coroutine \"%s\" is resumed after it has finished", self.name);
  LARDER_CHECK(!self.running(), "coroutine \"%s\" is resumed while it runs", self.name);
  self.outer = static_cast<state*>(coro::innermost_coroutine());
  coro::set_innermost_coroutine(&self);
  self.started = true;
  self.fiber::resume();
  coro::set_innermost_coroutine(self.outer);
  if (self.thrown && !self.cancelling) std::rethrow_exception(std::exchange(self.thrown, nullptr));
}

bool coroutine::done() const { return state_ == nullptr || state_->finished(); }

const char* coroutine::name() const { return state_ == nullptr ? "" : state_->name; }

bool coroutine::inside() { return coro::innermost_coroutine() != nullptr; }

void coroutine::yield() {
  auto* self = static_cast<state*>(coro::innermost_coroutine());
  LARDER_CHECK(self != nullptr, "coroutine::yield outside of a coroutine");
  self->suspend();
  // A destructor that yields while it unwinds the stack must not throw: there it goes on at once.
  if (self->cancelling && std::uncaught_exceptions() == 0) throw cancelled();
}

}  // namespace larder

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
#include <string>

#include <larder/coroutine.h>

#include "base/atomic.h"
#include "base/check.h"
#include "base/registry.h"
#include "coro/fiber.h"
#include "coro/stack_cache.h"
#include "os/guard.h"
#include "os/parker.h"

namespace larder {

struct coroutine::state : coro::fiber {
  explicit state(std::byte* stack_low) : fiber(stack_low) { is_coroutine = true; }

  void run_body();

  coro::stack_cache<state>* home = nullptr;  // where it goes back to
  void* closure = nullptr;
  std::byte* top = nullptr;  // of the stack below the closure
  void (*run)(void*, void*) = nullptr;
  void (*discard)(void*) = nullptr;  // destroys a closure that never ran
  std::exception_ptr thrown;         // failed ⇔ not null
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
struct stack_caches {
  using cache = coro::stack_cache<State>;
  static constinit inline std::array<base::atomic<cache*>, classes> made{};
  static inline std::array<std::once_flag, classes> once;
  static inline std::array<base::registration*, classes> shown{};

  static std::size_t size_for(bytes stack_size) { return std::max(std::bit_ceil(stack_size.count), smallest_stack); }
  // Null if there is none yet.
  static cache* find(std::size_t size) {
    // Acquire: sees the cache as it was made; partner: the store below.
    return made[static_cast<std::size_t>(std::countr_zero(size / smallest_stack))].load(base::memory_order_acquire);
  }
  static cache& of(bytes stack_size) {
    const std::size_t size = size_for(stack_size);
    if (cache* there = find(size)) [[likely]]
      return *there;
    const auto which = static_cast<std::size_t>(std::countr_zero(size / smallest_stack));
    std::call_once(once[which], [&] {
      const std::string name = "coroutines/" + format_bytes({size});
      auto fresh = cache::create(name, {.stack_size = {size}});
      if (!fresh) throw std::bad_alloc();
      shown[which] = new base::registration([&stacks = **fresh, name](const base::stat_visitor& show) {
        show({name, "stack_high_water_bytes", stacks.high_water_seen().count});
      });
      made[which].store(fresh->release(), base::memory_order_release);
    });
    return *made[which];
  }
};

// The slow way to a stack: others' memory is reclaimed for it. Null if there is none.
template <typename State>
[[gnu::noinline]] static State* reclaim_and_get(coro::stack_cache<State>& cache) {
  if (os::parker::current().reclaiming) return nullptr;
  const std::uint64_t refused = os::guards().refused;
  if (State* got = cache.try_get()) return got;
  // Not for want of memory: every idle stack of the process was given up already.
  if (os::guards().refused != refused) return nullptr;
  const bytes slab = cache.cache().stats().slab_bytes;
  for (int attempt = 0; attempt < reclaim_attempts; ++attempt) {
    if (memory_budget::process().reclaim(slab) == bytes{0}) return nullptr;
    if (State* got = cache.try_get()) return got;
  }
  return nullptr;
}

inline coroutine::state& coroutine::self() const { return static_cast<state&>(*core_); }

void* coroutine::prepare(const options& chosen, std::size_t closure_size, std::size_t closure_alignment) {
  if (chosen.stack_size > stack_size_max) {
    throw std::invalid_argument("larder::coroutine: a stack of " + format_bytes(chosen.stack_size) +
                                " is more than the largest, 1M");
  }
  coro::stack_cache<state>& cache = stack_caches<state>::of(chosen.stack_size);
  state* made = cache.try_get();
  if (made == nullptr) [[unlikely]]
    made = reclaim_and_get(cache);
  if (made == nullptr) throw std::bad_alloc();
  made->home = &cache;
  made->name = chosen.name;
  core_ = made;
  const auto end = reinterpret_cast<std::uintptr_t>(made) - closure_size;
  auto* place = reinterpret_cast<std::byte*>(end & ~(std::uintptr_t{closure_alignment} - 1));
  made->top = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(place) & ~std::uintptr_t{15});
  return place;
}

void coroutine::begin(void* closure, void (*run)(void*, void*), void (*discard)(void*)) {
  state& made = self();
  made.closure = closure;
  made.run = run;
  made.discard = discard;
  made.cancelling = false;
  made.start([](void* argument) { static_cast<state*>(argument)->run_body(); }, &made, made.top);
}

void coroutine::state::run_body() {
  try {
    run(closure, passed);
  } catch (const cancelled&) {
    if (!cancelling) thrown = std::current_exception();
  } catch (...) {
    thrown = std::current_exception();
  }
  passed = nullptr;
  failed = thrown != nullptr;
}

coroutine& coroutine::operator=(coroutine&& other) noexcept {
  coroutine taken(std::move(other));
  std::swap(core_, taken.core_);
  return *this;
}

coroutine::~coroutine() {
  if (core_ == nullptr) return;
  state& ended = self();
  LARDER_CHECK(!ended.running(), "coroutine \"%s\" is destroyed while it runs", ended.name);
  if (!ended.finished()) cancel();
  ended.home->put(&ended);
}

void coroutine::cancel() {
  if (done()) return;
  state& ended = self();
  LARDER_CHECK(!ended.running(), "coroutine \"%s\" is cancelled while it runs", ended.name);
  if (ended.now == detail::fiber_core::phase::fresh) {
    ended.discard(ended.closure);
    ended.abandon();
    return;
  }
  ended.cancelling = true;
  // A coroutine that swallows `cancelled` and yields again gets it again.
  while (!ended.finished()) ended.fiber::resume();
  ended.thrown = nullptr;
  ended.failed = false;
}

void coroutine::refuse_resume() const {
  LARDER_CHECK(core_ != nullptr, "resume of a coroutine that was moved from");
  base::die(__FILE__, __LINE__, "coroutine \"%s\" is resumed %s", self().name,
            self().running() ? "while it runs" : "after it has finished");
}

void coroutine::refuse_yield() { base::die(__FILE__, __LINE__, "coroutine::yield outside of a coroutine"); }

void coroutine::resume_watched() { self().fiber::resume(); }

void coroutine::yield_watched(detail::fiber_core& innermost) { static_cast<state&>(innermost).fiber::suspend(); }

void coroutine::rethrow() {
  self().failed = false;
  std::rethrow_exception(std::exchange(self().thrown, nullptr));
}

// A destructor that yields while it unwinds the stack must not throw: there it goes on at once.
void coroutine::unwind() {
  if (std::uncaught_exceptions() == 0) throw cancelled();
}

bytes coroutine::stack_high_water(bytes stack_size) {
  if (stack_size > stack_size_max) return {};
  const auto* cache = stack_caches<state>::find(stack_caches<state>::size_for(stack_size));
  return cache == nullptr ? bytes{} : cache->high_water();
}

const char* coroutine::name() const { return core_ == nullptr ? "" : self().name; }

bool coroutine::inside() {
  const detail::fiber_core* innermost = detail::this_thread().innermost;
  return innermost != nullptr && innermost->is_coroutine;
}

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include <larder/export.h>
#include <larder/fiber.h>
#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

// A stackful coroutine on a cached stack: making and ending one takes no system call once the caches are warm.
//
//   larder::coroutine count{[] { for (int i = 0;; ++i) { use(i); larder::coroutine::yield(); } }};
//   count.resume();
//
// One thread at a time uses a coroutine, and any thread may resume it next: its code must not keep the address of a
// thread-local variable over a yield. Below the stack lies a guard page: running over dies there. (The idea of keeping
// threads of control constructed, with their stacks, in an object cache is the Akaros VMM's.)
class LARDER_API coroutine {
 public:
  struct options {
    // At least so much; rounded up to a power of two from 16 KiB to 1 MiB. Some 400 bytes of it hold the coroutine.
    bytes stack_size = bytes{64U << 10};
    // Shown by debuggers and in messages; must outlive the coroutine.
    const char* name = "coroutine";
  };

  template <typename Body>
  static constexpr bool is_body = std::is_invocable_v<Body&> || std::is_invocable_v<Body&, void*>;

  // Ready to run `body` (callable with no argument, or with a void*: what the first resume passes; moved in) at the
  // first resume. Throws std::bad_alloc if the process budget has no room for a stack, or the system no mapping for its
  // guard, and nothing can be reclaimed for it; std::invalid_argument for a stack size above 1 MiB.
  template <typename Body, typename = std::enable_if_t<is_body<std::decay_t<Body>>>>
  explicit coroutine(Body&& body) : coroutine(std::forward<Body>(body), options{}) {}
  template <typename Body, typename = std::enable_if_t<is_body<std::decay_t<Body>>>>
  coroutine(Body&& body, options chosen) : coroutine() {  // from here on the destructor runs if the body's copy throws
    using stored = std::decay_t<Body>;
    static_assert(sizeof(stored) <= closure_size_max, "a closure this large belongs on the heap");
    void* place = prepare(chosen, sizeof(stored), alignof(stored));
    begin(
        new (place) stored(std::forward<Body>(body)),
        [](void* closure, [[maybe_unused]] void* first) {
          const std::unique_ptr<stored, destroy_in_place> owned(static_cast<stored*>(closure));
          if constexpr (std::is_invocable_v<stored&>) {
            (*owned)();
          } else {
            (*owned)(first);
          }
        },
        [](void* closure) { static_cast<stored*>(closure)->~stored(); });
  }
  coroutine(coroutine&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  coroutine& operator=(coroutine&& other) noexcept;
  // A coroutine that has not finished is cancelled first.
  ~coroutine();

  // Runs it until it yields or ends. What it throws comes out here, and then it has finished. Its yield returns
  // `value`; what comes back is what it passes to its next yield, null at its end. Dies if it runs already, has
  // finished, or was moved from.
  [[gnu::always_inline]] inline void* resume(void* value = nullptr) {
    detail::fiber_core* core = core_;
    if (core == nullptr || !core->can_be_resumed()) [[unlikely]]
      refuse_resume();
    core->passed = value;
#if LARDER_INLINE_SWITCHES
    core->begin_resume();
    detail::switch_context(core->resumer, core->own);
    core->end_resume();
#else
    resume_watched();
#endif
    if (core->failed) [[unlikely]]
      rethrow();
    return core->passed;
  }
  // Ends it, if it has not finished: the exception `cancelled` is thrown at its yield, unwinding its stack; what else
  // its body throws meanwhile goes nowhere. Before its first resume only its closure is destroyed. Dies if it runs.
  void cancel();
  bool done() const { return core_ == nullptr || core_->now == detail::fiber_core::phase::idle; }
  const char* name() const;

  // Goes back to whoever resumed the coroutine that calls: that resume returns `value`, this call what the next resume
  // passes. Dies outside of one.
  [[gnu::always_inline]] static inline void* yield(void* value = nullptr) {
    detail::fiber_core* self = detail::this_thread().innermost;
    if (self == nullptr || !self->is_coroutine) [[unlikely]]
      refuse_yield();
    self->passed = value;
#if LARDER_INLINE_SWITCHES
    self->now = detail::fiber_core::phase::suspended;
    detail::switch_context(self->own, self->resumer);
#else
    yield_watched(*self);
#endif
    if (self->cancelling) [[unlikely]]
      unwind();
    return self->passed;
  }
  // The most that any coroutine with stacks of this size has used of one so far, to the page, as far as that was seen:
  // each stack is looked at when its pages or the whole of it go back to the system, some of those that are there by
  // each call, and some in each second of use. Nothing if there has been none. Takes some microseconds; any thread.
  static bytes stack_high_water(bytes stack_size);
  // Whether the caller runs in a coroutine.
  static bool inside();

  // Thrown by yield in a coroutine that is cancelled. Let it pass: who catches it and yields gets it
  // again (but a yield in a destructor that it runs returns at once). Not derived from std::exception.
  struct cancelled {};

  static constexpr std::size_t closure_size_max = 1024;
  static constexpr bytes stack_size_max{1U << 20};

 private:
  struct state;
  struct destroy_in_place {
    template <typename T>
    void operator()(T* object) const {
      object->~T();
    }
  };
  coroutine() = default;
  void* prepare(const options& chosen, std::size_t closure_size, std::size_t closure_alignment);
  void begin(void* closure, void (*run)(void*, void*), void (*discard)(void*));

  // What the inlined part cannot do.
  [[noreturn]] void refuse_resume() const;
  [[noreturn]] static void refuse_yield();
  [[noreturn]] void rethrow();
  static void unwind();
  void resume_watched();
  static void yield_watched(detail::fiber_core& innermost);
  state& self() const;

  detail::fiber_core* core_ = nullptr;  // a state's
};

// From now on a coroutine or task that runs over the end of its stack dies with a message that tells its name, the size
// of its stack and how deep it was nested, instead of a bare SIGSEGV. Installs handlers of SIGSEGV and SIGBUS, which
// pass other faults on to those that were there, and gives 64 KiB for signals to the calling thread and to each thread
// that resumes its first coroutine or task later, outside of any budget. Call it early; any thread; again changes
// nothing. Only an overflow by less than a page is seen: compile with -fstack-clash-protection, or frames over 4 KiB
// may jump the guard. ENOMEM.
LARDER_API result<void> report_stack_overflow();

// A guard page costs nothing where the kernel has markers for it (Linux 6.13). Elsewhere each takes up to two of the
// mappings that the system allows a process (vm.max_map_count), and those of all coroutines and tasks, idle ones
// included, take at most this share of them, in percent from 0 to 100: 50, or what LARDER_GUARD_SHARE in the
// environment says, unless told. Where the share is used up and no idle stack can be given up for it, making a
// coroutine or spawning a task throws std::bad_alloc, and try_spawn returns false; what exists goes on, and each that
// ends makes room. Counts from the next stack on. EINVAL. Any thread; does not block.
LARDER_API result<void> set_stack_guard_share(unsigned percent);
LARDER_API unsigned stack_guard_share();

}  // namespace larder

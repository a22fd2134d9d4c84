// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include <larder/export.h>
#include <larder/memory_budget.h>
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

  // Ready to run `body` (callable with no argument, moved in) at the first resume. Throws std::bad_alloc if the process
  // budget has no room for a stack and nothing can be reclaimed for it, std::invalid_argument for a stack size above
  // 1 MiB.
  template <typename Body, typename = std::enable_if_t<std::is_invocable_v<std::decay_t<Body>&>>>
  explicit coroutine(Body&& body) : coroutine(std::forward<Body>(body), options{}) {}
  template <typename Body, typename = std::enable_if_t<std::is_invocable_v<std::decay_t<Body>&>>>
  coroutine(Body&& body, options chosen) : coroutine() {  // from here on the destructor runs if the body's copy throws
    using stored = std::decay_t<Body>;
    static_assert(sizeof(stored) <= closure_size_max, "a closure this large belongs on the heap");
    void* place = prepare(chosen, sizeof(stored), alignof(stored));
    begin(
        new (place) stored(std::forward<Body>(body)),
        [](void* closure) {
          const std::unique_ptr<stored, destroy_in_place> owned(static_cast<stored*>(closure));
          (*owned)();
        },
        [](void* closure) { static_cast<stored*>(closure)->~stored(); });
  }
  coroutine(coroutine&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  coroutine& operator=(coroutine&& other) noexcept;
  // A coroutine that has not finished is ended: the exception `cancelled` is thrown at its yield, unwinding its stack.
  ~coroutine();

  // Runs it until it yields or ends. What it throws comes out here, and then it has finished. Dies if it runs already,
  // has finished, or was moved from.
  void resume();
  bool done() const;
  const char* name() const;

  // Goes back to whoever resumed the coroutine that calls. Dies outside of one.
  static void yield();
  // Whether the caller runs in a coroutine.
  static bool inside();

  // Thrown by yield in a coroutine that is destroyed before its end. Let it pass: who catches it and yields gets it
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
  void* prepare(options chosen, std::size_t closure_size, std::size_t closure_alignment);
  void begin(void* closure, void (*run)(void*), void (*discard)(void*));

  state* state_ = nullptr;
};

}  // namespace larder

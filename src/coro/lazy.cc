// SPDX-License-Identifier: Apache-2.0
//
// How a thread or task that is no coroutine waits for one: it makes one whose body is empty, to be resumed at the
// other's end, and whose own end wakes the thread.
#include <atomic>
#include <coroutine>
#include <exception>
#include <utility>

#include <larder/lazy.h>

#include "base/check.h"
#include "os/waiting.h"

namespace larder::detail {
namespace {

// Something that happens once, and whoever made this waits for it.
class event {
 public:
  void wait() {
    // Acquire: the partner of the release in `set`, so that what the coroutine did is seen after this.
    time_point since{};
    while (!happened_.load(std::memory_order_acquire)) {
      const os::waiting noted(waiter_, {.kind = "lazy"}, since);
      waiter_.park();
    }
  }
  // Never inlined into a coroutine, so that no compiler keeps a part of it in the frame: that may be gone after the
  // store.
  [[gnu::noinline]] void set() {
    os::parker& waiter = waiter_;  // is never freed, while the event is gone once it has happened
    happened_.store(true, std::memory_order_release);
    waiter.unpark();
  }

 private:
  os::parker& waiter_ = os::parker::current();
  std::atomic<bool> happened_{false};
};

// Owns a coroutine that sets an event when it has ended, so that it may be destroyed as soon as that is set.
class event_setter {
 public:
  struct promise_type : pooled_frame {
    struct set_event {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> ended) const noexcept { ended.promise().ending.set(); }
      void await_resume() const noexcept {}
    };

    explicit promise_type(event& set_at_end) : ending(set_at_end) {}
    event_setter get_return_object() { return event_setter(handle::from_promise(*this)); }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    set_event final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }

    event& ending;
  };
  using handle = std::coroutine_handle<promise_type>;

  event_setter(event_setter&& other) noexcept : coroutine_(std::exchange(other.coroutine_, {})) {}
  event_setter& operator=(event_setter&&) = delete;
  ~event_setter() {
    if (coroutine_) coroutine_.destroy();
  }
  std::coroutine_handle<> coroutine() const { return coroutine_; }

 private:
  explicit event_setter(handle coroutine) : coroutine_(coroutine) {}
  handle coroutine_;
};

event_setter set_at_end(event&) { co_return; }

}  // namespace

void run_to_end(std::coroutine_handle<> coroutine, lazy_promise_base& promise) {
  event ended;
  const event_setter setter = set_at_end(ended);
  promise.set_awaiter(setter.coroutine());
  coroutine.resume();
  ended.wait();
}

void die_of_second_await() {
  LARDER_CHECK(false, "a lazy coroutine is awaited a second time");
  __builtin_unreachable();
}

void die_of_empty_await() {
  LARDER_CHECK(false, "a lazy coroutine is awaited that was moved from");
  __builtin_unreachable();
}

}  // namespace larder::detail

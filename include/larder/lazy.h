// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <larder/export.h>
#include <larder/pooled_frame.h>

namespace larder {

template <typename T>
class lazy;

namespace detail {

[[noreturn]] LARDER_API void die_of_second_await();
[[noreturn]] LARDER_API void die_of_empty_await();

// What the promises of all lazy coroutines have in common.
class lazy_promise_base : public pooled_frame {
 public:
  struct resume_awaiter {
    bool await_ready() const noexcept { return false; }
    template <typename Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
      return ended.promise().awaiter_;
    }
    void await_resume() const noexcept {}
  };

  std::suspend_always initial_suspend() const noexcept { return {}; }
  resume_awaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { failure_ = std::current_exception(); }

  // Who is resumed at the end; set once.
  void set_awaiter(std::coroutine_handle<> awaiter) {
    if (awaiter_) [[unlikely]]
      die_of_second_await();
    awaiter_ = awaiter;
  }

 protected:
  // The exception leaves the frame, which may be destroyed later and elsewhere.
  void rethrow_failure() {
    if (failure_) [[unlikely]]
      std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  std::coroutine_handle<> awaiter_;
  std::exception_ptr failure_;
};

// What a coroutine leaves to who awaits it: a value, a reference or nothing, or an exception.
template <typename T>
class lazy_result : public lazy_promise_base {
 public:
  template <std::convertible_to<T> Value = T>
  void return_value(Value&& value) {
    value_.emplace(std::forward<Value>(value));
  }
  T take() {
    rethrow_failure();
    return *std::move(value_);
  }

 private:
  std::optional<T> value_;
};

template <typename T>
requires std::is_reference_v<T>
class lazy_result<T> : public lazy_promise_base {
 public:
  void return_value(T value) noexcept { value_ = std::addressof(value); }
  T take() {
    rethrow_failure();
    return static_cast<T>(*value_);
  }

 private:
  std::remove_reference_t<T>* value_ = nullptr;
};

template <>
class lazy_result<void> : public lazy_promise_base {
 public:
  void return_void() const noexcept {}
  void take() { rethrow_failure(); }
};

template <typename T>
class lazy_promise final : public lazy_result<T> {
 public:
  lazy<T> get_return_object() noexcept { return lazy<T>(std::coroutine_handle<lazy_promise>::from_promise(*this)); }
};

// Runs the coroutine on the calling thread, and returns when it has ended, wherever that was.
LARDER_API void run_to_end(std::coroutine_handle<> coroutine, lazy_promise_base& promise);

}  // namespace detail

// A C++20 coroutine that starts when it is awaited, on the thread of who awaits it, and resumes that one when it has
// ended, on the thread where it ended:
//
//   larder::lazy<int> twice(int n) { co_return 2 * n; }
//   larder::lazy<int> sum(int n) { co_return co_await twice(n) + co_await twice(n + 1); }
//   int result = larder::sync_wait(sum(20));
//
// T is what `co_return` gives and `co_await` gets: an object type, a reference, or void. An exception that leaves the
// coroutine comes out of the `co_await`. The frame is pooled (pooled_frame.h): a call that finds no room for it throws
// std::bad_alloc.
//
// A lazy owns its coroutine. Destroyed, it destroys the frame with all that lives in it, wherever that is suspended:
// not while it runs, nor while anybody may still resume it. One thread at a time uses a lazy; the coroutine may go on
// on any. Parameters by reference must live until the coroutine has ended.
//
// Going from one coroutine to another is a jump, so neither long loops of awaits nor deep chains grow the stack, if the
// compiler makes tail calls: g++ from -O2 on (or with -foptimize-sibling-calls), clang always.
template <typename T = void>
class [[nodiscard]] lazy {
 public:
  using promise_type = detail::lazy_promise<T>;

  lazy(lazy&& other) noexcept : coroutine_(std::exchange(other.coroutine_, {})) {}
  lazy& operator=(lazy&& other) noexcept {
    lazy taken(std::move(other));
    std::swap(coroutine_, taken.coroutine_);
    return *this;
  }
  ~lazy() {
    if (coroutine_) coroutine_.destroy();
  }

  // Runs the coroutine to its end, once: `co_await f()` or `co_await std::move(it)`. Dies if it was awaited before, or
  // moved from.
  auto operator co_await() && noexcept {
    struct awaiter {
      std::coroutine_handle<promise_type> awaited;
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) const noexcept {
        awaited.promise().set_awaiter(awaiting);
        return awaited;
      }
      T await_resume() const { return awaited.promise().take(); }
    };
    return awaiter{present()};
  }

  // Runs the coroutine on the calling thread and returns its result, or throws its exception. While it is suspended on
  // what another thread will resume, parks the task if there is one, else the thread. Not from what the coroutine waits
  // for. Throws std::bad_alloc also if there is no room for a small frame more.
  template <typename U>
  friend U sync_wait(lazy<U> work);

 private:
  friend promise_type;
  explicit lazy(std::coroutine_handle<promise_type> coroutine) noexcept : coroutine_(coroutine) {}

  std::coroutine_handle<promise_type> present() const noexcept {
    if (!coroutine_) [[unlikely]]
      detail::die_of_empty_await();
    return coroutine_;
  }

  std::coroutine_handle<promise_type> coroutine_;
};

template <typename T>
T sync_wait(lazy<T> work) {
  const auto coroutine = work.present();
  detail::run_to_end(coroutine, coroutine.promise());
  return coroutine.promise().take();
}

}  // namespace larder

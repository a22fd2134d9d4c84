// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <larder/export.h>

namespace larder {

namespace task_layer {
// Calls it on a helper thread of the calling task's runtime, and parks meanwhile; or at once, outside of a task.
LARDER_API void call_on_helper(void (*run)(void*), void* argument);
}  // namespace task_layer

// Calls `body` where it may block in the system, and gives what it returns or throws what it throws: a task has a
// thread of its runtime make the call, and parks until it is over, so that its worker goes on with other tasks; a plain
// thread makes the call itself. For what has no asynchronous form: look-ups of names, libraries that block, long
// computing.
//
// There are at most runtime::options::blocking_threads_max such threads, started on need and ended after ten seconds
// without work; calls beyond that wait for their turn, first come first served. The call runs outside of the task:
// `this_task` and thread-locals are the thread's there. It is not cut short if the task is cancelled. Throws
// std::system_error (EAGAIN, ENOMEM) if the system has no room for even one thread; then `body` was not called.
template <typename Body>
std::invoke_result_t<Body&> blocking(Body&& body) {
  using returned = std::invoke_result_t<Body&>;
  constexpr bool nothing = std::is_void_v<returned>;
  constexpr bool reference = std::is_reference_v<returned>;
  using kept =
      std::conditional_t<nothing, char,
                         std::conditional_t<reference, std::add_pointer_t<returned>, std::remove_cv_t<returned>>>;
  struct call {
    std::remove_reference_t<Body>* body;
    std::optional<kept> value;
    std::exception_ptr thrown;
  } made{std::addressof(body), {}, {}};
  task_layer::call_on_helper(
      [](void* argument) {
        auto& mine = *static_cast<call*>(argument);
        try {
          if constexpr (nothing) {
            (*mine.body)();
          } else if constexpr (reference) {
            auto&& bound = (*mine.body)();
            mine.value = std::addressof(bound);
          } else {
            mine.value.emplace((*mine.body)());
          }
        } catch (...) {
          mine.thrown = std::current_exception();
        }
      },
      &made);
  if (made.thrown) std::rethrow_exception(std::exchange(made.thrown, nullptr));
  if constexpr (reference) {
    return static_cast<returned>(**made.value);
  } else if constexpr (!nothing) {
    return std::move(*made.value);
  }
}

}  // namespace larder

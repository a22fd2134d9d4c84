// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include <larder/result.h>
#include <larder/units.h>

namespace larder::os {

// A thread of the library's own: all signals blocked, named (15 characters are kept) and joined by whoever started it.
class thread {
 public:
  thread() = default;
  thread(thread&& other) noexcept;
  thread& operator=(thread&& other) noexcept;
  ~thread();  // the thread was joined, or never started

  // EAGAIN where the system has no room for one more. `stack_size` is address space; 0 takes the system's default.
  static result<thread> start(const char* name, std::function<void()> body, bytes stack_size = {});
  bool joinable() const { return handle_ != 0; }
  void join();
  // Whether it is the one that asks.
  bool is_current() const;
  // In a forked child, for a thread that stayed with the parent: forgets it.
  void abandon() { handle_ = 0; }

 private:
  unsigned long handle_ = 0;
};

// The system's number of the calling thread, as debuggers and /proc show it.
std::uint32_t thread_id();

}  // namespace larder::os

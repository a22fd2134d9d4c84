// SPDX-License-Identifier: Apache-2.0
#include "os/memory_fault.h"

#include <signal.h>

#include <cerrno>
#include <mutex>

#include "os/fault.h"
#include "os/memory.h"

namespace larder::os {
namespace {

// Room for the message's formatting, and for the registers that the kernel saves, which are some kilobytes.
constexpr bytes signal_stack_length{64U << 10};

void (*look_first)(const void*) = nullptr;
struct sigaction before_segv {};
struct sigaction before_bus {};

void on_fault(int number, siginfo_t* information, void*) {
  look_first(information->si_addr);
  // Not ours: the access is made again, and meets whoever was there before.
  ::sigaction(number, number == SIGSEGV ? &before_segv : &before_bus, nullptr);
}

int change_handler(int number, const struct sigaction& wanted, struct sigaction& before) {
  return fault::fires(call::signal) ? -1 : ::sigaction(number, &wanted, &before);
}

int change_stack(const stack_t* wanted, stack_t* before) {
  return fault::fires(call::signal) ? -1 : ::sigaltstack(wanted, before);
}

class signal_stack {
 public:
  signal_stack() = default;
  ~signal_stack() {
    if (memory_ == nullptr) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
    unmap(memory_, signal_stack_length);
  }
  signal_stack(const signal_stack&) = delete;
  signal_stack& operator=(const signal_stack&) = delete;

  result<void> provide() {
    stack_t there{};
    if (change_stack(nullptr, &there) != 0) return error_from(errno);
    if ((there.ss_flags & SS_DISABLE) == 0) return {};
    const result<void*> mapped = map(signal_stack_length);
    if (!mapped) return mapped.error();
    stack_t ours{};
    ours.ss_sp = *mapped;
    ours.ss_size = signal_stack_length.count;
    if (change_stack(&ours, nullptr) != 0) {
      const int error_number = errno;
      unmap(*mapped, signal_stack_length);
      return error_from(error_number);
    }
    memory_ = *mapped;
    return {};
  }

 private:
  void* memory_ = nullptr;
};

}  // namespace

result<void> watch_memory_faults(void (*look)(const void* address)) {
  static std::mutex guard;
  static bool installed = false;
  const std::lock_guard<std::mutex> locked(guard);
  if (installed) return {};
  look_first = look;  // stays if what follows fails: a handler may be under way
  struct sigaction ours {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  if (change_handler(SIGSEGV, ours, before_segv) != 0) return error_from(errno);
  if (change_handler(SIGBUS, ours, before_bus) != 0) {
    const int error_number = errno;
    ::sigaction(SIGSEGV, &before_segv, nullptr);
    return error_from(error_number);
  }
  installed = true;
  return {};
}

result<void> provide_signal_stack() {
  thread_local signal_stack mine;
  return mine.provide();
}

}  // namespace larder::os

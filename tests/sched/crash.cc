// SPDX-License-Identifier: Apache-2.0
//
// The signal's handler only sends the thread that faulted to `crashed`, on that thread's own stack, and returns to the
// kernel: so neither the signal mask nor the handler's stack is left behind in a schedule that never goes on.
#include "tests/sched/crash.h"

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <cstddef>

#include "base/check.h"
#include "tests/sched/engine.h"

namespace larder::sched {
namespace {

alignas(16) std::array<std::byte, 64 * 1024> handler_stack;

[[noreturn]] void crashed() { engine::running()->fail("crash: a wild access to memory"); }

void on_fault(int signal, siginfo_t*, void* context) {
  if (engine::running() == nullptr) {
    ::signal(signal, SIG_DFL);  // the access is tried again, and ends the process
    return;
  }
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  constexpr greg_t red_zone = 128;
  constexpr greg_t return_address = 8;
  registers[REG_RSP] = ((registers[REG_RSP] - red_zone) & ~greg_t{15}) - return_address;
  registers[REG_RIP] = reinterpret_cast<greg_t>(&crashed);
}

}  // namespace

void catch_crashes() {
  stack_t stack{};
  stack.ss_sp = handler_stack.data();
  stack.ss_size = handler_stack.size();
  LARDER_CHECK(::sigaltstack(&stack, nullptr) == 0, "sigaltstack failed");
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int signal : {SIGSEGV, SIGBUS}) {
    LARDER_CHECK(::sigaction(signal, &action, nullptr) == 0, "sigaction failed");
  }
}

}  // namespace larder::sched

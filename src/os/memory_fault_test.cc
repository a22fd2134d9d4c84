// SPDX-License-Identifier: Apache-2.0
#include "os/memory_fault.h"

#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <thread>
#include <tuple>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::os {
namespace {

// A process watches once, so each test that gets as far is a process of its own.
class MemoryFaultDeathTest : public testing::Test {
 protected:
  MemoryFaultDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override { fault::disarm(); }
};

[[noreturn]] void look(const void*) { std::_Exit(42); }
[[noreturn]] void look_elsewhere(const void*) { std::_Exit(43); }

void touch_nothing() { *reinterpret_cast<volatile int*>(16) = 1; }

struct sigaction handler_of(int number) {
  struct sigaction now {};
  EXPECT_EQ(::sigaction(number, nullptr, &now), 0);
  return now;
}

// Watches, which fails at its n-th system call; the handlers are as before, and watching again has effect.
[[noreturn]] void fail_then_watch(std::uint64_t nth) {
  const auto segv = handler_of(SIGSEGV).sa_sigaction;
  const auto bus = handler_of(SIGBUS).sa_sigaction;
  fault::arm(call::signal, nth, EINVAL);
  if (watch_memory_faults(look_elsewhere)) std::_Exit(1);
  if (!fault::fired()) std::_Exit(2);
  fault::disarm();
  if (handler_of(SIGSEGV).sa_sigaction != segv || handler_of(SIGBUS).sa_sigaction != bus) std::_Exit(3);
  if (!watch_memory_faults(look)) std::_Exit(4);
  if (!watch_memory_faults(look_elsewhere)) std::_Exit(5);
  touch_nothing();
  std::_Exit(6);
}

TEST_F(MemoryFaultDeathTest, AWatchThatFailedIsAnErrorAndTheNextOneWatches) {
  EXPECT_EXIT(fail_then_watch(1), testing::ExitedWithCode(42), "");
  EXPECT_EXIT(fail_then_watch(2), testing::ExitedWithCode(42), "");
}

TEST(MemoryFaultTest, ASignalStackThatCannotBeHadIsAnErrorAndTheNextCallHasIt) {
  for (const auto& [failing, nth, error] :
       {std::tuple{call::signal, 1U, EINVAL}, {call::signal, 2U, ENOMEM}, {call::map, 1U, ENOMEM}}) {
    std::thread([failing = failing, nth = nth, error = error] {
      stack_t none{};
      none.ss_flags = SS_DISABLE;
      ASSERT_EQ(::sigaltstack(&none, nullptr), 0);  // a sanitizer gives each thread one
      fault::arm(failing, nth, error);
      EXPECT_EQ(provide_signal_stack().error(), error_from(error));
      EXPECT_TRUE(fault::fired());
      fault::disarm();
      EXPECT_TRUE(provide_signal_stack());
      stack_t now{};
      EXPECT_EQ(::sigaltstack(nullptr, &now), 0);
      EXPECT_EQ(now.ss_flags & SS_DISABLE, 0);
      EXPECT_GE(now.ss_size, std::size_t{64} << 10);
    }).join();
  }
}

}  // namespace
}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#include "os/signal.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>

#include "os/clock.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

// In a process of its own, since the signals stay held: 0 if all that it expects came true.
int await_in_turn() {
  hold_signals();
  if (::raise(SIGPIPE) != 0) return 1;
  if (await_signal(now() + 10ms) != 0) return 2;
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) {
    ::kill(::getpid(), number);
    if (await_signal(now() + 10s) != number) return 3;
  }
  std::thread other([] {
    std::this_thread::sleep_for(10ms);
    ::kill(::getpid(), SIGTERM);
  });
  const int got = await_signal(no_deadline);
  other.join();
  return got == SIGTERM ? 0 : 4;
}

TEST(SignalDeathTest, HeldSignalsAreAwaitedInsteadOfKilling) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(await_in_turn()), testing::ExitedWithCode(0), "");
}

TEST(SignalDeathTest, ReleasedSignalsKillAgain) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        hold_signals();
        ::kill(::getpid(), SIGTERM);
        release_signals();
      },
      testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace larder::os

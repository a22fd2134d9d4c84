// SPDX-License-Identifier: Apache-2.0
#include "os/signal.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>

#include "os/clock.h"

namespace larder::os {
namespace {

sigset_t held_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) ::sigaddset(&set, number);
  return set;
}

}  // namespace

void hold_signals() {
  const sigset_t set = held_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool asks_to_stop(int signal) { return signal == SIGINT || signal == SIGTERM; }
bool asks_for_report(int signal) { return signal == SIGUSR2; }

void release_signals() {
  const sigset_t set = held_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

int await_signal(time_point deadline) {
  const sigset_t set = held_signals();
  for (;;) {
    const auto left =
        std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - now()).count());
    const timespec patience{left / 1'000'000'000, left % 1'000'000'000};
    const int number = ::sigtimedwait(&set, nullptr, &patience);
    if (number > 0) return number;
    if (errno != EINTR) return 0;
  }
}

}  // namespace larder::os

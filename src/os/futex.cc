// SPDX-License-Identifier: Apache-2.0
#include "os/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace larder::os {
namespace {

static_assert(sizeof(base::atomic<std::uint32_t>) == sizeof(std::uint32_t));

}  // namespace

bool futex_wait(base::atomic<std::uint32_t>& word, std::uint32_t expected, time_point deadline) {
  timespec until{};
  if (deadline != no_deadline) {
    // FUTEX_WAIT_BITSET takes the absolute time of the monotonic clock, which is steady_clock's.
    const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
    if (since <= 0) return false;
    until.tv_sec = since / 1'000'000'000;
    until.tv_nsec = since % 1'000'000'000;
  }
  const long outcome = ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                                 deadline == no_deadline ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
  return outcome == 0 || errno != ETIMEDOUT;
}

void futex_wake_one(base::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
}

}  // namespace larder::os

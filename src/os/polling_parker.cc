// SPDX-License-Identifier: Apache-2.0
#include "os/polling_parker.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <utility>

#include "base/check.h"
#include "base/lock_rank.h"
#include "os/clock.h"
#include "os/fault.h"

namespace larder::os {
namespace {

// Leak checkers find all of them from here.
base::atomic<polling_parker*> newest{nullptr};

// Rounded up, so that a deadline has passed when poll says so.
int milliseconds_until(time_point deadline) {
  if (deadline == no_deadline) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
}

}  // namespace

polling_parker::polling_parker(descriptor watched, descriptor wake)
    : watched_(std::move(watched)), wake_(std::move(wake)) {}

result<polling_parker*> polling_parker::make(descriptor watched) {
  if (fault::fires(call::event)) return error_from(errno);
  descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return error_from(errno);
  auto* made = new polling_parker(std::move(watched), std::move(wake));
  made->older_ = newest.exchange(made);
  return made;
}

bool polling_parker::park_until(time_point deadline) {
  base::check_no_lock_held("parking");
  for (;;) {
    std::array<pollfd, 2> looked{pollfd{.fd = wake_.number(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = watched_.number(), .events = POLLPRI, .revents = 0}};
    asleep_ = true;
    const int ready = ::poll(looked.data(), looked.size(), milliseconds_until(deadline));
    asleep_ = false;
    LARDER_CHECK(ready >= 0 || errno == EINTR, "poll failed with error %d", errno);
    if (ready < 0) continue;
    const bool exceptional = (looked[1].revents & POLLPRI) != 0;  // told once
    if (exceptional) seen_ = true;
    // Its group is gone: what was watched will not come any more.
    if ((looked[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) watched_.close();
    std::uint64_t tokens = 0;
    if ((looked[0].revents & POLLIN) != 0) {
      static_cast<void>(::read(wake_.number(), &tokens, sizeof tokens));
    }
    if (tokens > 0 || exceptional) return true;
    if (ready == 0 && now() >= deadline) return false;
  }
}

void polling_parker::unpark() {
  const std::uint64_t one = 1;
  static_cast<void>(::write(wake_.number(), &one, sizeof one));  // it fails only where there are tokens already
}

void polling_parker::abandon() {
  watched_.close();
  wake_.close();
}

}  // namespace larder::os

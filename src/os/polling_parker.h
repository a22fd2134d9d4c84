// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <larder/result.h>

#include "base/atomic.h"
#include "os/file.h"
#include "os/parker.h"

namespace larder::os {

// The parker of a thread that also sleeps for a descriptor: whenever that is exceptional (poll's POLLPRI), a park ends,
// as with a token. Like all parkers it is never freed.
class polling_parker final : public parker {
 public:
  // ENFILE, EMFILE, ENOMEM.
  static result<polling_parker*> make(descriptor watched);

  void park() override { park_until(no_deadline); }
  bool park_until(time_point deadline) override;
  void unpark() override;
  bool is_parked() const override { return asleep_.load(); }
  // Whether the descriptor was exceptional since the last call.
  bool take_event() { return seen_.exchange(false); }
  // In a forked child, whose thread it is not: closes what it has open.
  void abandon();

 private:
  polling_parker(descriptor watched, descriptor wake);
  ~polling_parker() = default;

  [[maybe_unused]] polling_parker* older_ = nullptr;
  descriptor watched_;
  descriptor wake_;  // an eventfd: not zero while there is a token
  base::atomic<bool> asleep_{false};
  base::atomic<bool> seen_{false};
};

}  // namespace larder::os

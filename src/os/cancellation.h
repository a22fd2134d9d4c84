// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/atomic.h"

namespace larder::os {

// Whether somebody asked whoever runs to stop. A request is *pending* until a wait has ended for it; that there was one
// stays known. Who requests wakes the other afterwards, so that either the look before a park or the token sees it.
class cancellation {
 public:
  // Before the other runs.
  void reset() { state_ = nobody_asked; }
  // Any thread.
  void request() { state_ = pending; }
  // The rest is for whom it concerns.
  bool is_pending() const { return state_ == pending; }
  void take() { state_ = taken; }
  bool requested() const { return state_ != nobody_asked; }

 private:
  enum state : std::uint8_t { nobody_asked, pending, taken };
  base::atomic<state> state_{nobody_asked};
};

}  // namespace larder::os

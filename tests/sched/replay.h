// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/sched/decision.h"

namespace larder::sched {

// A schedule as text: what was chosen wherever there was a choice, with dots between and `x3` for three times. A number
// is the thread that runs; `e` behind it: its deadline passes; `s`: it wakes for no reason; `m1`: it is moved to CPU 1;
// `r`: its sequence is interrupted; `d`: its store stays in its buffer; `f`: the oldest store there leaves it. `p1`
// picks the second of some equal possibilities.
std::string to_text(const std::vector<action>& schedule);
// Throws std::invalid_argument if `text` is none.
std::vector<action> from_text(std::string_view text);

// Follows a schedule; what comes after its end takes the first option.
class replay final : public strategy {
 public:
  explicit replay(std::vector<action> schedule) : schedule_(std::move(schedule)) {}
  unsigned choose(const decision& open) override;
  // A choice did not offer what was chosen there before.
  bool diverged() const { return diverged_; }

 private:
  const std::vector<action> schedule_;
  std::size_t at_ = 0;
  bool diverged_ = false;
};

}  // namespace larder::sched

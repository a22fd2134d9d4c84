// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/random_priorities.h"

#include <numeric>

namespace larder::sched {

void random_priorities::begin(unsigned steps) {
  std::iota(priorities_.begin(), priorities_.end(), depth_);
  std::shuffle(priorities_.begin(), priorities_.end(), random_);
  for (unsigned fall = 0; fall + 1 < depth_; ++fall) falls_[fall] = 1 + below(std::max(steps, 1U));
  step_ = 0;
}

unsigned random_priorities::choose(const decision& open) {
  if (open.count > 1 && open.options[0].what == action::kind::pick) return static_cast<unsigned>(below(open.count));
  ++step_;
  unsigned interferences = 0;
  for (unsigned option = 0; option < open.count; ++option) {
    if (open.options[option].what != action::kind::run) ++interferences;
  }
  if (interferences == open.count) return static_cast<unsigned>(below(open.count));
  if (interferences > 0 && below(interferes_one_in) == 0) {
    // They stand behind the runs, as the engine lists them.
    return open.count - 1 - static_cast<unsigned>(below(interferences));
  }
  for (unsigned fall = 0; fall + 1 < depth_; ++fall) {
    if (falls_[fall] == step_) priorities_[open.options[highest(open)].thread] = fall;
  }
  return highest(open);
}

unsigned random_priorities::highest(const decision& open) const {
  unsigned best = open.count;
  for (unsigned option = 0; option < open.count; ++option) {
    if (open.options[option].what != action::kind::run) continue;
    if (best == open.count || priorities_[open.options[option].thread] > priorities_[open.options[best].thread]) {
      best = option;
    }
  }
  return best;
}

}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/depth_first.h"

#include <bit>

namespace larder::sched {
namespace {

std::uint8_t bit_of(unsigned thread) { return static_cast<std::uint8_t>(1U << thread); }

bool is_run(const action& option) { return option.what == action::kind::run; }

}  // namespace

unsigned depth_first::choose(const decision& open) {
  if (redundant_) return 0;  // to the end, whichever way
  if (open.count == 1) {
    if (is_run(open.options[0]) && (asleep_ & bit_of(open.options[0].thread)) != 0) redundant_ = true;
    take(open, 0, asleep_);
    return 0;
  }
  if (depth_ == nodes_.size()) {
    const std::uint32_t options = worth_trying(open);
    if (options == 0) {
      redundant_ = true;
      return 0;
    }
    const auto first = static_cast<std::uint8_t>(std::countr_zero(options));
    nodes_.push_back({options & (options - 1), static_cast<std::uint8_t>(open.count), first, asleep_, 0});
  }
  node& here = nodes_[depth_++];
  if (here.count != open.count) {
    diverged_ = true;
    return 0;
  }
  const action& chosen = open.options[here.chosen];
  here.chosen_bit = is_run(chosen) ? bit_of(chosen.thread) : 0;
  take(open, here.chosen, here.asleep);
  return here.chosen;
}

std::uint32_t depth_first::worth_trying(const decision& open) {
  std::uint32_t options = 0;
  for (unsigned option = 0; option < open.count; ++option) {
    if (open.preempts(option) && preemptions_ >= preemptions_max_) {
      cut_ = true;
    } else if (!is_run(open.options[option]) || (asleep_ & bit_of(open.options[option].thread)) == 0) {
      options |= 1U << option;
    }
  }
  return options;
}

// Goes on with `option`: of the threads that slept, those stay asleep whose next operation it does not touch.
void depth_first::take(const decision& open, unsigned option, std::uint8_t asleep) {
  if (open.preempts(option)) ++preemptions_;
  asleep_ = 0;
  const action& chosen = open.options[option];
  if (!reduces_ || asleep == 0 || !is_run(chosen)) return;
  for (unsigned thread = 0; thread < threads_max; ++thread) {
    if ((asleep & bit_of(thread)) == 0 || thread == chosen.thread) continue;
    if (!dependent(*open.next[thread], *open.next[chosen.thread])) asleep_ |= bit_of(thread);
  }
}

bool depth_first::next() {
  depth_ = 0;
  preemptions_ = 0;
  asleep_ = 0;
  redundant_ = false;
  while (!nodes_.empty() && nodes_.back().untried == 0) nodes_.pop_back();
  if (nodes_.empty()) return false;
  node& last = nodes_.back();
  last.asleep |= last.chosen_bit;
  last.chosen = static_cast<std::uint8_t>(std::countr_zero(last.untried));
  last.untried &= last.untried - 1;
  return true;
}

}  // namespace larder::sched

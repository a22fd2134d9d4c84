// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sched/decision.h"

namespace larder::sched {

constexpr unsigned unbounded = ~0U;

// Every schedule with at most so many preemptions, one after the other: depth-first, without saved states; a schedule
// is run again up to its last open choice and takes the next there. (Bounded by preemptions as in CHESS: most faults
// need two. A thread that blocks, ends or yields is left for free.)
//
// Without a bound, sleep sets (Godefroid) leave out schedules that only swap neighbouring independent operations: a
// thread that was tried at a choice need not be tried below its later options until something dependent happens. With a
// bound that would be unsound, for the schedule that stands for others may need more preemptions than they.
class depth_first final : public strategy {
 public:
  explicit depth_first(unsigned preemptions, bool reduces)
      : preemptions_max_(preemptions), reduces_(reduces && preemptions == unbounded) {}

  unsigned choose(const decision& open) override;
  // Goes to the next schedule. False if there is none.
  bool next();
  // The bound has hidden something.
  bool cut() const { return cut_; }
  // The schedule just run only repeats others in another order.
  bool redundant() const { return redundant_; }
  // A choice had other options than when it was met before: the code under test is not deterministic.
  bool diverged() const { return diverged_; }

 private:
  struct node {
    std::uint32_t untried;  // options, as bits
    std::uint8_t count;     // of options
    std::uint8_t chosen;
    std::uint8_t asleep;      // threads, as bits: those that need not run here
    std::uint8_t chosen_bit;  // the thread that `chosen` runs, as a bit; 0 if it is no run
  };
  static_assert(decision::options_max <= 32 && threads_max <= 8);

  std::uint32_t worth_trying(const decision& open);
  void take(const decision& open, unsigned option, std::uint8_t asleep);

  const unsigned preemptions_max_;
  const bool reduces_;
  std::vector<node> nodes_;
  // Of the schedule that runs:
  std::size_t depth_ = 0;
  unsigned preemptions_ = 0;
  std::uint8_t asleep_ = 0;
  bool redundant_ = false;
  bool cut_ = false;
  bool diverged_ = false;
};

}  // namespace larder::sched

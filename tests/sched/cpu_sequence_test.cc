// SPDX-License-Identifier: Apache-2.0
//
// The simulated restartable sequences behave as the kernel's do: what is safe with them passes, what is not is found.
#include "os/cpu_sequence.h"

#include <array>
#include <string>

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using os::sequence_result;

constexpr std::uint64_t biased = 1;
constexpr std::uint64_t stopped = 2;

system_settings with_sequences() { return {.cpus = 2, .sequences = os::sequence_mode::concurrency_id}; }

// A counter for each of two CPUs behind a gate.
class counters : public scenario {
 protected:
  counters() {
    for (unsigned cpu = 0; cpu < 2; ++cpu) {
      gates_[cpu] = biased;
      name(gates_[cpu], "gate " + std::to_string(cpu));
      name(counts_[cpu], "count " + std::to_string(cpu));
    }
  }
  // Adds to the counter of whatever CPU it is on. False if the gate is closed.
  bool add() {
    for (;;) {
      const int cpu = os::sequence_cpu();
      const auto at = static_cast<std::size_t>(cpu);
      if (gates_[at] != biased) return false;
      const std::uint64_t seen = counts_[at];
      if (os::compare_store(static_cast<std::uint32_t>(cpu), gates_[at], biased, counts_[at], seen, seen + 1) ==
          sequence_result::done)
        return true;
    }
  }
  std::uint64_t sum() const { return counts_[0] + counts_[1]; }

  std::array<base::atomic<std::uint64_t>, 2> gates_{};
  std::array<base::atomic<std::uint64_t>, 2> counts_{};
};

class adders_on_one_cpu : public counters {
 public:
  adders_on_one_cpu() {
    thread(
        "one", [this] { add(); }, 0);
    thread(
        "two", [this] { add(); }, 0);
    thread(
        "three", [this] { add(); }, 1);
  }
  void audit() override { require(sum() == 3, "3 additions made %d", static_cast<int>(sum())); }
};

// Two threads of one CPU could restart each other for ever, so there is a bound.
TEST(CpuSequenceSchedTest, PlainStoresOfOneCpuLoseNothing) {
  system_settings system = with_sequences();
  system.restarts = 1;
  const search_report report = explore<adders_on_one_cpu>({.preemptions = 3, .system = system});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(CpuSequenceSchedTest, ThreadsThatAreMovedBetweenCpusLoseNothing) {
  system_settings system = with_sequences();
  system.migrations = 2;
  const search_report report = explore<adders_on_one_cpu>({.preemptions = 2, .system = system});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// Writes the counter of CPU 0 from CPU 1, as if a sequence excluded other CPUs.
class adder_from_outside : public counters {
 public:
  adder_from_outside() {
    thread(
        "owner", [this] { add(); }, 0);
    thread(
        "outsider", [this] { counts_[0] += 1; }, 1);
  }
  void audit() override { require(sum() == 2, "2 additions made %d", static_cast<int>(sum())); }
};

TEST(CpuSequenceSchedTest, SequenceDoesNotExcludeOtherCpus) {
  EXPECT_TRUE(has_failure(explore<adder_from_outside>({.system = with_sequences()})));
}

// Closes the gate of CPU 0, fences or not, and writes its counter.
template <bool fences>
class adder_with_gate : public counters {
 public:
  adder_with_gate() {
    thread(
        "owner", [this] { added_ = add(); }, 0);
    thread(
        "thief",
        [this] {
          gates_[0] = stopped;
          if (fences) os::fence_sequences();
          const std::uint64_t seen = counts_[0];
          counts_[0] = seen + 1;
        },
        1);
  }
  void audit() override {
    const std::uint64_t additions = added_ ? 2 : 1;
    require(sum() == additions, "%d additions made %d", static_cast<int>(additions), static_cast<int>(sum()));
  }

 private:
  bool added_ = false;
};

TEST(CpuSequenceSchedTest, GateAndFenceExcludeTheOwner) {
  const search_report report = explore<adder_with_gate<true>>({.preemptions = unbounded, .system = with_sequences()});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(CpuSequenceSchedTest, GateWithoutFenceIsCaught) {
  EXPECT_TRUE(has_failure(explore<adder_with_gate<false>>({.system = with_sequences()})));
}

// Both sides use compare-and-swap behind the gate.
class gated_adders : public counters {
 public:
  gated_adders() {
    for (unsigned cpu = 0; cpu < 2; ++cpu) {
      thread(
          cpu == 0 ? "left" : "right",
          [this] {
            for (sequence_result last = sequence_result::differs; last != sequence_result::done;) {
              const std::uint64_t seen = counts_[0];
              last = os::gated_compare_exchange(gates_[0], biased, counts_[0], seen, seen + 1);
            }
          },
          cpu);
    }
  }
  void audit() override { require(sum() == 2, "2 additions made %d", static_cast<int>(sum())); }
};

TEST(CpuSequenceSchedTest, GatedCompareExchangeExcludesAllCpus) {
  const search_report report = explore<gated_adders>({.preemptions = unbounded, .system = with_sequences()});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

}  // namespace
}  // namespace larder::sched

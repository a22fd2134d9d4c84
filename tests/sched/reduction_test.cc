// SPDX-License-Identifier: Apache-2.0
//
// What the search leaves out, it may leave out: over random programs, every end that any schedule has is also the end
// of one that was run.
#include <array>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "base/mutex.h"
#include "base/sanitizers.h"
#include "base/yield.h"
#include "os/cpu_sequence.h"
#include "tests/sched/explore.h"
#include "tests/support/model_random.h"

namespace larder::sched {
namespace {

enum class instruction : unsigned char { load, store, add, yield, fence, lock, sequence };
constexpr unsigned short_instructions = 5;  // of one step
constexpr unsigned instructions = 7;
constexpr unsigned words = 2;
constexpr unsigned threads = 3;
constexpr unsigned length = 3;
// The search leaves out the same in every build; under the sanitizers a round takes twenty times as long.
#if defined(LARDER_ADDRESS_SANITIZER)
constexpr int rounds = 8;
#else
constexpr int rounds = 40;
#endif

struct step {
  instruction what;
  unsigned word;
};
using program = std::array<std::array<step, length>, threads>;
// What the words are at the end, and what each thread has seen.
using ending = std::vector<std::uint64_t>;

program random_program(tests::model_random& random) {
  program made;
  for (auto& body : made) {
    for (step& each : body) {
      // A long one each for the first two threads is as much as can be searched whole.
      const bool may_be_long = &each == body.data() && &body != &made.back();
      each.what = static_cast<instruction>(random.below(may_be_long ? instructions : short_instructions));
      each.word = static_cast<unsigned>(random.below(words));
    }
  }
  return made;
}

class program_scenario : public scenario {
 public:
  program_scenario(const program& runs, std::set<ending>& endings) : endings_(endings) {
    for (unsigned number = 0; number < threads; ++number) {
      thread(
          "thread",
          [this, &body = runs[number], number] {
            for (const step& each : body) execute(each, number);
          },
          number / 2);
    }
  }
  void audit() override {
    ending all;
    for (const auto& word : words_) all.push_back(word);
    for (const auto& seen : seen_) all.insert(all.end(), seen.begin(), seen.end());
    endings_.insert(std::move(all));
  }

 private:
  void execute(const step& each, unsigned number) {
    base::atomic<std::uint64_t>& word = words_[each.word];
    switch (each.what) {
      case instruction::load:
        seen_[number].push_back(word);
        break;
      case instruction::store:
        word = 10 + number;
        break;
      case instruction::add:
        seen_[number].push_back(word++);
        break;
      case instruction::lock: {
        const std::lock_guard locked(locks_[each.word]);
        plain_[each.word] = plain_[each.word] * 3 + number;
        seen_[number].push_back(plain_[each.word]);
        break;
      }
      case instruction::yield:
        base::yield();
        break;
      case instruction::fence:
        os::fence_sequences();
        break;
      case instruction::sequence: {
        const auto cpu = static_cast<std::uint32_t>(os::sequence_cpu());
        const auto outcome = os::compare_store(cpu, gate_, 0, word, 0, 20 + number);
        seen_[number].push_back(static_cast<std::uint64_t>(outcome));
        break;
      }
    }
  }

  std::set<ending>& endings_;
  std::array<base::atomic<std::uint64_t>, words> words_{};
  const base::atomic<std::uint64_t> gate_{0};
  std::array<base::system_mutex, words> locks_;
  std::array<unsigned, words> plain_{};  // guarded by the lock of the same number
  std::array<std::vector<std::uint64_t>, threads> seen_;
};

std::set<ending> endings_of(const program& runs, search_options options) {
  options.schedules_max = 5'000'000;
  options.system = {.cpus = 2, .sequences = os::sequence_mode::concurrency_id};
  std::set<ending> endings;
  const search_report report = run_search([&] { return std::make_unique<program_scenario>(runs, endings); }, options);
  EXPECT_TRUE(report.complete);
  return endings;
}

TEST(ReductionTest, EveryEndingOfARandomProgramIsReached) {
  tests::model_random random;
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    const program runs = random_program(random);
    const std::set<ending> all = endings_of(runs, {.preemptions = unbounded, .reduces = false});
    EXPECT_EQ(endings_of(runs, {.preemptions = unbounded}), all) << "with sleep sets";
    EXPECT_EQ(endings_of(runs, {.preemptions = 100}), all) << "with a bound that cuts nothing";
  }
}

}  // namespace
}  // namespace larder::sched

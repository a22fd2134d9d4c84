// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_sequence.h"

#include <sys/rseq.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "os/cpu.h"
#include "os/fault.h"
#include "os/sequence_abort_test.h"

namespace larder::os {
namespace {

class CpuSequenceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (sequences() == sequence_mode::sharded) GTEST_SKIP() << "no restartable sequences: " << sequences_description();
  }

  static std::uint32_t here() { return static_cast<std::uint32_t>(sequence_cpu()); }

  base::atomic<std::uint64_t> gate{1};
  base::atomic<std::uint64_t> word{10};
  base::atomic<std::uint32_t> place{0};
};

// KF-19
TEST(SequencesTest, TheModeIsNamedAndExplained) {
  const std::string said = sequences_description();
  switch (sequences()) {
    case sequence_mode::concurrency_id:
      EXPECT_EQ(said, "rseq-cid");
      break;
    case sequence_mode::cpu_id:
      EXPECT_EQ(said, "rseq-cpu");
      break;
    case sequence_mode::sharded:
      EXPECT_EQ(said.find("sharded: "), 0U);
      EXPECT_GT(said.size(), 20U);
  }
}

// KF-13
TEST(SequencesTest, TheCpusNumberIsWithinThePossibleOnes) {
  static_cast<void>(sequences());
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([] {
      for (int round = 0; round < 10'000; ++round) {
        const int cpu = sequence_cpu();
        ASSERT_GE(cpu, 0);
        ASSERT_LT(cpu, possible_cpus());
        if (round % 100 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& each : threads) each.join();
}

TEST_F(CpuSequenceTest, StoresOnlyWhatIsAsExpectedHereAndOpen) {
  EXPECT_EQ(compare_store(here(), gate, 2, word, 10, 11), sequence_result::restarted);
  EXPECT_EQ(compare_store(here() + 1, gate, 1, word, 10, 11), sequence_result::restarted);
  EXPECT_EQ(word.load(), 10U);
  while (compare_store(here(), gate, 1, word, 9, 11) == sequence_result::restarted) continue;
  EXPECT_EQ(word.load(), 10U);
  while (compare_store(here(), gate, 1, word, 10, 11) != sequence_result::done) continue;
  EXPECT_EQ(word.load(), 11U);
  while (compare_store(here(), gate, 1, word, 11, 12, place, 5) != sequence_result::done) continue;
  EXPECT_EQ(word.load(), 12U);
  EXPECT_EQ(place.load(), 5U);
  EXPECT_EQ(gated_compare_exchange(gate, 2, word, 12, 13), sequence_result::restarted);
  while (gated_compare_exchange(gate, 1, word, 11, 13) == sequence_result::restarted) continue;
  EXPECT_EQ(word.load(), 12U);
  while (gated_compare_exchange(gate, 1, word, 12, 13) != sequence_result::done) continue;
  EXPECT_EQ(word.load(), 13U);
}

// Every thread adds to the counter of the CPU that it is on, with plain stores; not one addition is lost, although
// they are preempted, and moved from CPU to CPU.
TEST_F(CpuSequenceTest, NoCommitOfOneCpuIsLost) {
  struct alignas(64) counter {
    base::atomic<std::uint64_t> count{0};
  };
  std::vector<counter> counters(static_cast<std::size_t>(possible_cpus()));
  constexpr int threads_count = 6;
  constexpr std::uint64_t additions = 100'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < threads_count; ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t done = 0; done < additions;) {
        const std::uint32_t cpu = here();
        base::atomic<std::uint64_t>& mine = counters[cpu].count;
        const std::uint64_t seen = mine.load(base::memory_order_relaxed);
        if (compare_store(cpu, gate, 1, mine, seen, seen + 1) == sequence_result::done) ++done;
        if (done % 1000 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& each : threads) each.join();
  std::uint64_t sum = 0;
  for (const counter& each : counters) sum += each.count;
  EXPECT_EQ(sum, threads_count * additions);
}

// One CPU's counter is written by its own threads in sequences, and by another that closes the gate and fences.
TEST_F(CpuSequenceTest, AFenceEndsWhatSawTheOldGate) {
  base::atomic<bool> stop{false};
  std::vector<std::uint64_t> counts(static_cast<std::size_t>(possible_cpus()) * 8);
  const auto at = [&](std::uint32_t cpu) -> base::atomic<std::uint64_t>& {
    return reinterpret_cast<base::atomic<std::uint64_t>&>(counts[cpu * 8]);
  };
  base::atomic<std::uint64_t> added{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      std::uint64_t mine = 0;
      while (!stop) {
        const std::uint32_t cpu = here();
        const std::uint64_t seen = at(cpu).load(base::memory_order_relaxed);
        if (compare_store(cpu, gate, 1, at(cpu), seen, seen + 1) == sequence_result::done) ++mine;
      }
      added += mine;
    });
  }
  while (at(0) == 0) std::this_thread::yield();
  for (std::uint64_t round = 0; round < 20'000; ++round) {
    gate = 2;
    fence_sequences();
    for (std::uint32_t cpu = 0; cpu < static_cast<std::uint32_t>(possible_cpus()); ++cpu) {
      const std::uint64_t seen = at(cpu).load(base::memory_order_relaxed);
      at(cpu).store(seen + 1, base::memory_order_relaxed);
      ++added;
    }
    gate = 1;
  }
  stop = true;
  for (std::thread& each : threads) each.join();
  std::uint64_t sum = 0;
  for (std::uint32_t cpu = 0; cpu < static_cast<std::uint32_t>(possible_cpus()); ++cpu) sum += at(cpu);
  EXPECT_EQ(sum, added.load());
}

// A failure that passes, for want of memory or of the registration, is asked again.
TEST_F(CpuSequenceTest, AFenceThatFailsIsRetried) {
  for (const int error_number : {ENOMEM, EPERM}) {
    fault::arm(call::membarrier, 1, error_number);
    fence_sequences();
    EXPECT_TRUE(fault::fired());
    EXPECT_GE(fault::uses(), 2U) << "it was not asked again";
    fault::disarm();
  }
}

TEST_F(CpuSequenceTest, AFenceThatNeverComesEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        fault::arm(call::membarrier, 1, ENOMEM, true);
        fence_sequences();
      },
      "membarrier failed 1000 times");
}

#if defined(__x86_64__)
[[gnu::noinline]] sequence_result run_compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate,
                                                    base::atomic<std::uint64_t>& word,
                                                    base::atomic<std::uint32_t>& place) {
  return compare_store(cpu, gate, 1, word, 10, 11, place, 5);
}
[[gnu::noinline]] sequence_result run_short_compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate,
                                                          base::atomic<std::uint64_t>& word,
                                                          base::atomic<std::uint32_t>&) {
  return compare_store(cpu, gate, 1, word, 10, 11);
}
[[gnu::noinline]] sequence_result run_compare_exchange(std::uint32_t, const base::atomic<std::uint64_t>& gate,
                                                       base::atomic<std::uint64_t>& word,
                                                       base::atomic<std::uint32_t>&) {
  return gated_compare_exchange(gate, 1, word, 10, 11);
}
using sequence_runner = sequence_result (*)(std::uint32_t, const base::atomic<std::uint64_t>&,
                                            base::atomic<std::uint64_t>&, base::atomic<std::uint32_t>&);

// KF-17
TEST_F(CpuSequenceTest, AnAbortAtAnyInstructionLeavesTheWordAndTheRetryIsRight) {
  for (const sequence_runner run : {&run_compare_store, &run_short_compare_store, &run_compare_exchange}) {
    sequence_result outcome = sequence_result::done;
    abort_test::abort_at_each_instruction([&] { word = 10; },
                                          [&] {
                                            const std::uint32_t cpu = detail::load_from_thread(detail::places.cpu);
                                            outcome = run(cpu, gate, word, place);
                                          },
                                          [&](std::ptrdiff_t offset) {
                                            EXPECT_EQ(outcome, sequence_result::restarted) << "at +" << offset;
                                            EXPECT_EQ(word.load(), 10U) << "at +" << offset;
                                            while (run(here(), gate, word, place) != sequence_result::done) continue;
                                            EXPECT_EQ(word.load(), 11U);
                                          });
  }
}

TEST_F(CpuSequenceTest, AThreadThatIsNotRegisteredHasNoCpu) {
  std::thread([] {
    abort_test::unregister();
    EXPECT_EQ(sequence_cpu(), -1);
    std::uint32_t cpu = 0;
    EXPECT_FALSE(find_sequence_cpu(cpu));
  }).join();
}

#endif

TEST(SequencesDeathTest, WithoutTheFenceThereAreNoSequences) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a new process, in which nothing is decided yet
  EXPECT_EXIT(
      {
        fault::arm(call::membarrier, 1, EPERM);
        std::fprintf(stderr, "%s\n", sequences_description());
        std::exit(sequences() == sequence_mode::sharded ? 0 : 1);
      },
      testing::ExitedWithCode(0), "sharded: (no membarrier|the C library|none written|the thread sanitizer)");
}

// The thread is registered, but the sequences may not be used: code that was inlined into users must not act.
[[noreturn]] void use_a_cache_without_the_fence() {
  fault::arm(call::membarrier, 1, EPERM);
  raw_cache cache("unfenced", {.size = 64});
  for (int round = 0; round < 1000; ++round) {
    void* first = cache.try_get();
    void* second = cache.try_get();
    cache.put(first);
    cache.put(second);
  }
  cache.audit();
  std::_Exit(cache.active_mode().name == "sharded" && cache.stats().gets == 2000 ? 0 : 1);
}

TEST(SequencesDeathTest, WithoutTheFenceCachesDoWithoutThem) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(use_a_cache_without_the_fence(), testing::ExitedWithCode(0), "");
}

#if defined(__x86_64__)
// Newer kernels kill who writes more.
TEST_F(CpuSequenceTest, NothingButTheDescriptorIsWritten) {
  struct rseq before {};
  struct rseq after {};
  do {
    std::memcpy(&before, abort_test::area(), sizeof before);
    word = 10;
    while (compare_store(here(), gate, 1, word, 10, 11, place, 5) != sequence_result::done) continue;
    std::memcpy(&after, abort_test::area(), sizeof after);
  } while (before.cpu_id != after.cpu_id);
  before.rseq_cs = after.rseq_cs = 0;
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

#endif

}  // namespace
}  // namespace larder::os

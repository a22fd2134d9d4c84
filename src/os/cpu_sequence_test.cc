// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_sequence.h"

#include <linux/rseq.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
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

// What follows plants a breakpoint on one instruction of a sequence after another. The signal that it raises makes the
// kernel abort the sequence at just that instruction.

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

struct rseq* area() {
  return reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
}

// The descriptor that the thread armed last.
const struct rseq_cs* armed() { return reinterpret_cast<const struct rseq_cs*>(area()->rseq_cs); }

std::vector<unsigned char*> stepped;
unsigned char* step_from = nullptr;
unsigned char* step_to = nullptr;
unsigned char* planted = nullptr;
unsigned char replaced = 0;
int breaks = 0;

#if defined(__x86_64__)
void note_step(int, siginfo_t*, void* raw) {
  auto* at = reinterpret_cast<unsigned char*>(static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP]);
  if (at >= step_from && at < step_to) stepped.push_back(at);
}

void step_on() { asm volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory"); }
void step_off() { asm volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory"); }

void take_break(int, siginfo_t*, void*) {
  ++breaks;
  *planted = replaced;
}

struct sigaction handle_trap(void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction wanted {};
  struct sigaction before {};
  wanted.sa_sigaction = handler;
  wanted.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &wanted, &before);
  return before;
}

// The instructions of the sequence: stepped through by a thread that the kernel has been told to leave alone, for every
// step would abort it.
std::vector<unsigned char*> instructions_of(sequence_runner run, const struct rseq_cs* sequence) {
  std::thread([&] {
    base::atomic<std::uint64_t> gate{1};
    base::atomic<std::uint64_t> word{10};
    base::atomic<std::uint32_t> place{0};
    ASSERT_EQ(::syscall(SYS_rseq, area(), 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0) << std::strerror(errno);
    const std::uint32_t cpu = detail::load_from_thread(detail::places.cpu);
    step_from = reinterpret_cast<unsigned char*>(sequence->start_ip);
    step_to = step_from + sequence->post_commit_offset;
    stepped.clear();
    const struct sigaction before = handle_trap(note_step);
    step_on();
    const sequence_result outcome = run(cpu, gate, word, place);
    step_off();
    sigaction(SIGTRAP, &before, nullptr);
    ASSERT_EQ(outcome, sequence_result::done);
  }).join();
  return stepped;
}

TEST_F(CpuSequenceTest, AnAbortAtAnyInstructionLeavesTheWordAndTheRetryIsRight) {
  for (const sequence_runner run : {&run_compare_store, &run_short_compare_store, &run_compare_exchange}) {
    while (run(here(), gate, word, place) != sequence_result::done) word = 10;
    const struct rseq_cs* sequence = armed();
    ASSERT_NE(sequence, nullptr);
    const std::vector<unsigned char*> instructions = instructions_of(run, sequence);
    ASSERT_GE(instructions.size(), 6U);
    auto* page = reinterpret_cast<unsigned char*>(sequence->start_ip & ~std::uintptr_t{4095});
    ASSERT_EQ(::mprotect(page, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    const struct sigaction before = handle_trap(take_break);
    for (unsigned char* instruction : instructions) {
      word = 10;
      breaks = 0;
      planted = instruction;
      replaced = *instruction;
      *instruction = 0xcc;
      const sequence_result outcome = run(here(), gate, word, place);
      EXPECT_EQ(breaks, 1);
      EXPECT_EQ(outcome, sequence_result::restarted) << "at +" << instruction - instructions.front();
      EXPECT_EQ(word.load(), 10U) << "at +" << instruction - instructions.front();
      while (run(here(), gate, word, place) != sequence_result::done) continue;
      EXPECT_EQ(word.load(), 11U);
    }
    sigaction(SIGTRAP, &before, nullptr);
    ASSERT_EQ(::mprotect(page, 2 * 4096, PROT_READ | PROT_EXEC), 0);
  }
}
#endif

TEST_F(CpuSequenceTest, AThreadThatIsNotRegisteredHasNoCpu) {
  std::thread([] {
    ASSERT_EQ(::syscall(SYS_rseq, area(), 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0) << std::strerror(errno);
    EXPECT_EQ(sequence_cpu(), -1);
    std::uint32_t cpu = 0;
    EXPECT_FALSE(find_sequence_cpu(cpu));
  }).join();
}

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

// Newer kernels kill who writes more.
TEST_F(CpuSequenceTest, NothingButTheDescriptorIsWritten) {
  struct rseq before {};
  struct rseq after {};
  do {
    std::memcpy(&before, area(), sizeof before);
    word = 10;
    while (compare_store(here(), gate, 1, word, 10, 11, place, 5) != sequence_result::done) continue;
    std::memcpy(&after, area(), sizeof after);
  } while (before.cpu_id != after.cpu_id);
  before.rseq_cs = after.rseq_cs = 0;
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

}  // namespace
}  // namespace larder::os

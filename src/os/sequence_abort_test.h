// SPDX-License-Identifier: Apache-2.0
//
// Aborts a restartable sequence at each of its instructions. A thread that the kernel has been told to leave alone
// steps through the sequence, for every step would abort it; so its instructions are known. Then a breakpoint is
// planted on one after another. The signal that it raises makes the kernel abort the sequence at just that instruction,
// and the handler sees where it sends the thread.
#pragma once

#if defined(__x86_64__)

#include <linux/rseq.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace larder::os::abort_test {

inline struct rseq* area() {
  return reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
}

// The descriptor that the thread armed last.
inline const struct rseq_cs* armed() { return reinterpret_cast<const struct rseq_cs*>(area()->rseq_cs); }

inline void unregister() {
  ASSERT_EQ(::syscall(SYS_rseq, area(), 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0) << std::strerror(errno);
}

namespace detail {

inline std::vector<unsigned char*> stepped;
inline unsigned char* step_from = nullptr;
inline unsigned char* step_to = nullptr;
inline unsigned char* planted = nullptr;
inline unsigned char replaced = 0;
inline int breaks = 0;
inline std::uintptr_t resumed_at = 0;

inline void note_step(int, siginfo_t*, void* raw) {
  auto* at = reinterpret_cast<unsigned char*>(static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP]);
  if (at < step_from || at >= step_to) return;
  if (stepped.empty() || stepped.back() != at) stepped.push_back(at);  // a string instruction traps at each element
}

inline void step_on() { asm volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory"); }
inline void step_off() { asm volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory"); }

inline void take_break(int, siginfo_t*, void* raw) {
  ++breaks;
  *planted = replaced;
  resumed_at = static_cast<std::uintptr_t>(static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP]);
}

}  // namespace detail

// Handles a signal while it lives.
class handled_signal {
 public:
  handled_signal(int number, void (*handler)(int, siginfo_t*, void*)) : number_(number) {
    struct sigaction wanted {};
    wanted.sa_sigaction = handler;
    wanted.sa_flags = SA_SIGINFO;
    sigaction(number, &wanted, &before_);
  }
  ~handled_signal() { sigaction(number_, &before_, nullptr); }
  handled_signal(const handled_signal&) = delete;
  handled_signal& operator=(const handled_signal&) = delete;

 private:
  const int number_;
  struct sigaction before_ {};
};

// The instructions of the sequence that `run` goes through.
template <typename Run>
std::vector<unsigned char*> instructions_of(const struct rseq_cs* sequence, const Run& run) {
  std::thread([&] {
    unregister();
    area()->cpu_id = 0;  // the kernel has marked it; sequences refuse a thread without a CPU
    detail::step_from = reinterpret_cast<unsigned char*>(sequence->start_ip);
    detail::step_to = detail::step_from + sequence->post_commit_offset;
    detail::stepped.clear();
    const handled_signal traps(SIGTRAP, detail::note_step);
    detail::step_on();
    run();
    detail::step_off();
    area()->cpu_id = static_cast<std::uint32_t>(RSEQ_CPU_ID_UNINITIALIZED);
  }).join();
  return detail::stepped;
}

// For each instruction of the sequence that `run` goes through last: `prepare()`, `run()` with an abort at just that
// instruction, then `check(offset)`.
template <typename Prepare, typename Run, typename Check>
void abort_at_each_instruction(const Prepare& prepare, const Run& run, const Check& check) {
  const struct rseq_cs* sequence = nullptr;
  // Preempted behind the sequence, the thread would have forgotten the descriptor.
  for (int attempt = 0; attempt < 1000 && sequence == nullptr; ++attempt) {
    prepare();
    run();
    sequence = armed();
  }
  ASSERT_NE(sequence, nullptr);
  prepare();
  const std::vector<unsigned char*> instructions = instructions_of(sequence, run);
  ASSERT_GE(instructions.size(), 6U);
  auto* page = reinterpret_cast<unsigned char*>(sequence->start_ip & ~std::uintptr_t{4095});
  ASSERT_EQ(::mprotect(page, std::size_t{2} * 4096, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
  {
    const handled_signal traps(SIGTRAP, detail::take_break);
    for (unsigned char* instruction : instructions) {
      const auto offset = instruction - instructions.front();
      prepare();
      detail::breaks = 0;
      detail::planted = instruction;
      detail::replaced = *instruction;
      *instruction = 0xcc;
      run();
      EXPECT_EQ(detail::breaks, 1) << "at +" << offset;
      EXPECT_EQ(detail::resumed_at, sequence->abort_ip) << "at +" << offset;
      check(offset);
    }
  }
  ASSERT_EQ(::mprotect(page, std::size_t{2} * 4096, PROT_READ | PROT_EXEC), 0);
}

}  // namespace larder::os::abort_test

#endif

// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_sequence.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/sanitizers.h"
#include "os/fault.h"

#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#endif

namespace larder::os {

constinit detail::sequence_places detail::places;

namespace {

// As glibc registers; the abort addresses stand behind it.
static_assert(RSEQ_SIG == 0x53053053 || !LARDER_HAVE_SEQUENCES);

long membarrier(int command) {
  if (fault::fires(call::membarrier)) return -1;
  return ::syscall(SYS_membarrier, command, 0, 0);
}

// One of each outcome, on this thread's own state.
bool sequences_work() {
  base::atomic<std::uint64_t> gate{1};
  base::atomic<std::uint64_t> word{10};
  const auto run = [&](std::uint64_t open, std::uint64_t expected, std::uint64_t desired) {
    sequence_result outcome = sequence_result::restarted;
    // A machine that restarts 1000 in a row does not run sequences.
    for (int attempt = 0; attempt < 1000 && outcome == sequence_result::restarted; ++attempt) {
      outcome = compare_store(static_cast<std::uint32_t>(sequence_cpu()), gate, open, word, expected, desired);
    }
    return outcome;
  };
  return run(1, 10, 11) == sequence_result::done && word.load() == 11 && run(1, 10, 12) == sequence_result::differs &&
         word.load() == 11 && run(2, 11, 12) == sequence_result::restarted && word.load() == 11 &&
         compare_store(~0U, gate, 1, word, 11, 12) == sequence_result::restarted &&
         gated_compare_exchange(gate, 2, word, 11, 12) == sequence_result::restarted && word.load() == 11;
}

// Null, or why there are no sequences. Leaves `places` as they are to be used.
const char* start_sequences() {
  detail::places = {};
  if (!LARDER_HAVE_SEQUENCES) return "none written for this processor";
#ifdef LARDER_THREAD_SANITIZER
  return "the thread sanitizer does not see them";
#endif
  const std::ptrdiff_t area = __rseq_offset;
  if (__rseq_size == 0 || static_cast<int>(detail::load_from_thread(area + detail::registered_cpu_offset)) < 0) {
    return "the C library registered none (an old kernel, Valgrind, or glibc.pthread.rseq=0)";
  }
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ) != 0) {
    return "no membarrier that fences them off (Linux 5.10, or a filter of system calls)";
  }
  // A registered area is 32 bytes at least, so the concurrency id is in it if the kernel knows one.
  const bool has_concurrency_ids =
      ::getauxval(AT_RSEQ_FEATURE_SIZE) >= detail::concurrency_id_offset + sizeof(std::uint32_t);
  detail::places.area = area;
  detail::places.cpu = area + (has_concurrency_ids ? detail::concurrency_id_offset : detail::registered_cpu_offset);
  detail::places.mode = has_concurrency_ids ? sequence_mode::concurrency_id : sequence_mode::cpu_id;
  if (!sequences_work()) {
    detail::places = {};
    return "the self-test failed";
  }
  return nullptr;
}

struct decision {
  decision() : refusal(start_sequences()) {}
  const char* refusal;
};

const decision& decided() {
  static const decision once;
  return once;
}

}  // namespace

sequence_mode sequences() {
  decided();
  return detail::places.mode;
}

const char* sequences_description() {
  const char* refusal = decided().refusal;
  if (refusal == nullptr) return sequences() == sequence_mode::concurrency_id ? "rseq-cid" : "rseq-cpu";
  static const std::string text = std::string("sharded: ") + refusal;
  return text.c_str();
}

void fence_sequences() {
  if (detail::places.mode == sequence_mode::sharded) return;
  // EPERM: the registration was lost. ENOMEM passes; nothing can be done without the fence.
  constexpr int attempts_max = 1000;
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) == 0) return;
    if (errno == EPERM) membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ);
    ::sched_yield();
  }
  base::die(__FILE__, __LINE__, "membarrier failed %d times: %s", attempts_max, std::strerror(errno));
}

}  // namespace larder::os

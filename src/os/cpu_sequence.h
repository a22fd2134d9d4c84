// SPDX-License-Identifier: Apache-2.0
//
// Changes of per-CPU state without a lock and without an atomic read-modify-write: restartable sequences. A sequence
// is a few instructions that end in one store, the commit. If the thread is preempted, migrated, signalled or hit by a
// fence inside it, the kernel sends it to an abort address instead: nothing was committed, and the caller begins again.
// So on one CPU sequences are atomic to each other, and a fence ends all that are in progress on every CPU.
//
// Two kinds are enough for this library. `compare_store` is a compare-and-swap that is atomic among the threads of one
// CPU only, for the price of a plain store; it may write an element of an array before, as long as that means nothing
// until the commit. `gated_compare_exchange` is one that is atomic among all CPUs, and that still can be fenced off.
// Both do nothing unless a word that they are told of, their gate, has the value that their caller acts upon. Who has
// changed a gate and then fenced knows that nobody acts upon the old value any more.
//
// The kernel's part is rseq (Linux 4.18; the concurrency ids 6.3) and membarrier's PRIVATE_EXPEDITED_RSEQ (5.10); glibc
// registers each thread (2.35). Where one is missing `mode()` is sharded: a CPU's number is a hint then, and callers
// use compare-and-swap on words that never repeat, or locks.
#pragma once

#include <cstdint>

#include "base/atomic.h"

namespace larder::os {

enum class sequence_mode : unsigned char {
  sharded,         // no sequences
  cpu_id,          // numbered by CPUs
  concurrency_id,  // numbered by the kernel's compact ids: as many as threads have run at once
};

// How per-CPU state is changed in this process; decided when first asked, by a self-test.
sequence_mode sequences();
// "rseq-cid", "rseq-cpu" or "sharded: <the reason>".
const char* sequences_description();

enum class sequence_result : unsigned char {
  done,
  differs,    // the word was not as expected
  restarted,  // this thread is on another CPU, the gate has another value, or the kernel interfered: look afresh
};

// What follows may only be called once `sequences()` was, and the sequences not if it said sharded.

// The number to index per-CPU state with, 0 to possible_cpus() − 1. With sequences it is the one that compare_store
// asks for, or −1 in a thread that the C library could not register; without, it is a hint. Never kept over a switch of
// coroutines.
int sequence_cpu();

// The same in a mode that is not sharded. False, and nothing, in a thread that cannot run sequences.
bool find_sequence_cpu(std::uint32_t& cpu);

// If this thread runs on `cpu`, `gate` is `open` and `word` is `expected`: stores `desired`, with release order. Atomic
// to all threads on `cpu`; not to other CPUs, which must have stopped it by the gate and a fence before they write
// `word`.
sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                              base::atomic<std::uint64_t>& word, std::uint64_t expected, std::uint64_t desired);

// The same, and before it stores `element` to `place`, which may happen without the other.
sequence_result compare_store(std::uint32_t cpu, const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                              base::atomic<std::uint64_t>& word, std::uint64_t expected, std::uint64_t desired,
                              base::atomic<std::uint32_t>& place, std::uint32_t element);

// If `gate` is `open`: a sequentially consistent compare-and-swap of `word`, which is not written if it
// differs. On any CPU.
sequence_result gated_compare_exchange(const base::atomic<std::uint64_t>& gate, std::uint64_t open,
                                       base::atomic<std::uint64_t>& word, std::uint64_t expected,
                                       std::uint64_t desired);

// Restarts every sequence of this process that is in progress, on all CPUs, and is a full barrier on each. Costs one or
// two microseconds. Nothing in sharded mode.
void fence_sequences();

}  // namespace larder::os

#ifndef LARDER_SCHEDULED
#include "os/cpu_sequence_inline.h"
#endif

// SPDX-License-Identifier: Apache-2.0
//
// What the deterministic scheduler (docs/scheduler.md) hooks into. These exist only where LARDER_SCHEDULED is defined;
// tests/sched/ defines them. There, the code under test runs in logical threads, one at a time, and every operation on
// shared state first asks the scheduler which of them goes on.
#pragma once

#ifdef LARDER_SCHEDULED

#include <cstddef>
#include <cstdint>

namespace larder::base::schedule {

enum class access : std::uint8_t {
  load,
  store,           // sequentially consistent
  weak_store,      // any other: may wait in its thread's store buffer
  update,          // an atomic read-modify-write, whether it writes or not
  lock,            // `object` is the mutex's bool: the thread goes on when that is false
  unlock,          //
  sleep,           // a futex wait: looks at the word, and may sleep
  wake,            // a futex wake
  sequence,        // a step of a restartable sequence
  sequence_store,  // its commit, which is a weak store
  fence,           // affects every thread: fences, yields and whatever else may not be reordered with anything
};

// Called before an operation on `object`, which is then executed alone. Does nothing outside of a logical thread.
void point(const void* object, access how);

// A scheduling point of a load, and of a store that is not sequentially consistent. Where the test has store buffers,
// `load` returns the caller's own store to `object` that others cannot see yet, else null; and `weak_store` has kept
// `value` in the buffer if it returns true.
const void* load(const void* object);
bool weak_store(void* object, const void* value, std::size_t size);

// The caller waits for something that others do: it goes on only after one of them has, or when there is no other.
void yield();

// The code under test found itself broken: ends the schedule as a failure. Returns only outside of a schedule.
void check_failed(const char* message);

// How many locks of each rank the logical thread holds (lock_rank.cc).
int* locks_held();

// A pointer of each logical thread, null at first, in the place of a thread-local.
void** thread_slot();

}  // namespace larder::base::schedule

#endif

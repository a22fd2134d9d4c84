// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace larder::base {

// The lock order of the whole library: a thread takes locks in rising rank only, and holds none of them when it parks
// or calls user code. Debug builds check both (lock_rank.cc).
enum class lock_rank : std::uint8_t {
  registry,          // the registry of components: held while each reports its figures
  accounts,          // those who say what is charged to budgets: held while each does
  server,            // the program's own lists
  task_report,       // a report of tasks: one at a time
  helper_pool,       // a runtime's threads for blocking calls
  page_file,         // a cached file's error state
  page_eviction,     // a page cache's eviction queue and free frames
  page_bucket,       // a stripe of a page cache's hash table
  page_wait,         // waiters for busy pages
  handle_table,      // a handle table's frames, and its free entries on their way between lists
  handle_list,       // a CPU's free handles, where there are no restartable sequences
  guard_reclaimers,  // the list of the caches of stacks
  cache_waiters,     // an object cache's waiting getters
  cache_slabs,       // an object cache's slab lists
  cache_source,      // the address space of an object cache's slabs
  cache_shard,       // a per-CPU array, where there are no restartable sequences
  cache_debug,       // what the debug layers know of slabs and owners
  keeper,            // the keeper's list of caches
  budget,            // a budget tree's tickets and reclaimers: so far inside that anyone may charge and release
  page_daemon,       // the page daemon's list of what is due: innermost, as a charge may call it
};
inline constexpr int lock_ranks = static_cast<int>(lock_rank::page_daemon) + 1;

// Debug builds die on a lock taken out of order; release builds do nothing.
#ifdef LARDER_DEBUG_CHECKS
void note_locked(lock_rank rank);
void note_unlocked(lock_rank rank);
// Dies if the calling thread holds any ranked lock: parking with one would block its worker.
void check_no_lock_held(const char* doing);
#else
inline void note_locked(lock_rank) {}
inline void note_unlocked(lock_rank) {}
inline void check_no_lock_held(const char*) {}
#endif

}  // namespace larder::base

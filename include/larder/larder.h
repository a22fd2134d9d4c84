// SPDX-License-Identifier: Apache-2.0
//
// Larder for C (C11, and C++): object caches and the budgets that they charge. The same caches as object_cache.h and
// raw_cache.h give to C++, whose comments tell more.
//
//   larder_cache_options options = {.struct_size = sizeof options, .object_size = sizeof(struct request)};
//   larder_cache* requests = larder_cache_create("requests", &options);
//   struct request* request = larder_cache_alloc(requests);   // built already, if it was built before
//   larder_cache_free(requests, request);
//
// Threads: any thread may call anything at any time, also from construct, destroy and reset, except that nobody else
// may use a cache or budget, or make or destroy something that charges the budget, while it is destroyed or audited.
// Not from a signal handler, though a handler may interrupt any call.
//
// Errors: a function that returns int gives 0 or an errno value; one that returns a pointer gives NULL and sets errno;
// one that returns a number fails only for a null pointer, and then gives 0 and sets errno. EINVAL means a null
// pointer, a struct_size that is too small or was not set, or options that make no sense, unless construct returned it.
// errno says something only after a failure. Nothing throws: what a construct written in C++ throws becomes ENOMEM
// (std::bad_alloc), the value of the code (std::system_error), or ECANCELED (all else); destroy and reset must not
// throw. Proven misuse, such as an object freed twice or into another cache, kills the process with a message on
// stderr.
//
// Structs begin with their size, so that a program runs with a library whose structs are longer, or shorter. The caller
// sets it, in statistics too. Options that the caller's struct lacks are 0, which is the default of every option; those
// that the library does not know yet must be 0, else E2BIG (as in Linux's clone3). Statistics that the library does not
// know are set to 0.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <larder/export.h>

#ifdef __cplusplus
#define LARDER_NOEXCEPT noexcept
extern "C" {
#else
#define LARDER_NOEXCEPT
#endif

// NOLINTBEGIN(modernize-use-using): C has no other way

// ---- budgets: a limit on memory that is never exceeded (memory_budget.h)

typedef struct larder_budget larder_budget;

typedef struct larder_budget_options {
  size_t struct_size;      // sizeof(larder_budget_options)
  uint64_t limit_bytes;    // 0: none
  uint64_t reserve_bytes;  // kept free for those who give memory back; at most the limit
  larder_budget* parent;   // is charged too, and outlives this one; NULL: none
} larder_budget_options;

// The name is copied. NULL: EINVAL, E2BIG, ENOMEM.
LARDER_API larder_budget* larder_budget_create(const char* name, const larder_budget_options* options) LARDER_NOEXCEPT;
// EBUSY, and does nothing, while anything is charged to it or it has children; always for the process's.
LARDER_API int larder_budget_destroy(larder_budget* budget) LARDER_NOEXCEPT;
// The one that caches charge unless told otherwise; limited by LARDER_MEMORY_LIMIT in the environment. Never destroyed.
// NULL: ENOMEM.
LARDER_API larder_budget* larder_budget_process(void) LARDER_NOEXCEPT;
// In bytes: charged now, the most that ever was, and the limit (UINT64_MAX: none).
LARDER_API uint64_t larder_budget_used(const larder_budget* budget) LARDER_NOEXCEPT;
LARDER_API uint64_t larder_budget_peak(const larder_budget* budget) LARDER_NOEXCEPT;
LARDER_API uint64_t larder_budget_limit(const larder_budget* budget) LARDER_NOEXCEPT;

// ---- caches: objects of one size, kept built and ready on every CPU (raw_cache.h)

typedef struct larder_cache larder_cache;

typedef struct larder_cache_options {
  size_t struct_size;  // sizeof(larder_cache_options)
  size_t object_size;  // in bytes, 1 to 1 GiB
  size_t alignment;    // in bytes, a power of two up to 4096; 0: that of max_align_t
  size_t reservation;  // objects that are built at once and always there: getting them never fails and never waits
  size_t limit;        // the most objects that are built at any time; 0: none
  // Builds an object in raw memory (zeroed the first time it is used, unless LARDER_DEBUG checks contents, debug.h): 0,
  // or a positive errno value if it cannot. Runs when an object is first handed out, not when it is handed out again.
  // NULL: memory as it is.
  int (*construct)(void* object, void* context);
  // Undoes construct, once for each success, when the memory is given back: on a thread that reaps, that is short of
  // memory, that destroys the cache, or on the library's own. There it must not wait for memory.
  void (*destroy)(void* object, void* context);
  // Called by larder_cache_free first, to bring an object back to its constructed state.
  void (*reset)(void* object, void* context);
  void* context;          // is given to all three
  larder_budget* budget;  // outlives the cache; NULL: the process's
} larder_cache_options;

typedef struct larder_cache_statistics {
  size_t struct_size;       // sizeof(larder_cache_statistics)
  uint64_t objects_out;     // with users
  uint64_t objects_cached;  // ready for the CPUs
  uint64_t objects_built;   // out, cached, and free in slabs
  uint64_t slabs;           // runs of memory, each of objects_per_slab objects and slab_bytes bytes
  uint64_t objects_per_slab;
  uint64_t slab_bytes;
  uint64_t charged_bytes;  // to the budget, for everything now
  uint64_t constructed;    // successes of construct so far, and so on
  uint64_t construct_failures;
  uint64_t destroyed;
  uint64_t allocs;
  uint64_t frees;
  uint64_t waits;    // allocs that had to wait
  uint64_t waiting;  // allocs that wait now
} larder_cache_statistics;

// The name and the options are copied. Does not wait. NULL: EINVAL, E2BIG, ENOMEM, or what construct returned for an
// object of the reservation; then nothing is left behind.
LARDER_API larder_cache* larder_cache_create(const char* name, const larder_cache_options* options) LARDER_NOEXCEPT;
// Destroys all objects, then the cache. EBUSY, and does nothing, while objects are out or somebody waits for one.
LARDER_API int larder_cache_destroy(larder_cache* cache) LARDER_NOEXCEPT;

// A built object, which is the caller's until it frees it. Waits, first come first served, for one that is freed or for
// memory; parks the task if there is one, else the thread. NULL: ENOMEM if waiting cannot help, or what construct
// returned.
LARDER_API void* larder_cache_alloc(larder_cache* cache) LARDER_NOEXCEPT;
// The same, but waits for at most so many nanoseconds. NULL: ETIMEDOUT, besides.
LARDER_API void* larder_cache_alloc_timeout(larder_cache* cache, uint64_t timeout_ns) LARDER_NOEXCEPT;
// The same without waiting. NULL: EAGAIN if there is none now, or construct failed.
LARDER_API void* larder_cache_try_alloc(larder_cache* cache) LARDER_NOEXCEPT;
// Takes back an object that this cache gave, from whichever thread. EINVAL for NULL, else 0.
LARDER_API int larder_cache_free(larder_cache* cache, void* object) LARDER_NOEXCEPT;

// Destroys what is free, but the reservation, and gives the memory back, until `wanted_bytes` are released (UINT64_MAX:
// all); returns how many were.
LARDER_API uint64_t larder_cache_reap(larder_cache* cache, uint64_t wanted_bytes) LARDER_NOEXCEPT;
LARDER_API int larder_cache_stats(const larder_cache* cache, larder_cache_statistics* statistics) LARDER_NOEXCEPT;
// Checks every law of the cache's structure; a broken one kills the process.
LARDER_API int larder_cache_audit(const larder_cache* cache) LARDER_NOEXCEPT;
LARDER_API const char* larder_cache_name(const larder_cache* cache) LARDER_NOEXCEPT;
// How it runs: "rseq-cid", "rseq-cpu" or "sharded"; and why not better, empty if there is nothing better. The strings
// live as long as the cache.
LARDER_API const char* larder_cache_active_mode(const larder_cache* cache) LARDER_NOEXCEPT;
LARDER_API const char* larder_cache_mode_reason(const larder_cache* cache) LARDER_NOEXCEPT;

// NOLINTEND(modernize-use-using)

#ifdef __cplusplus
}
#endif

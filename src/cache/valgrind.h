// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#if __has_include(<valgrind/memcheck.h>) && !defined(LARDER_SCHEDULED)
#include <valgrind/memcheck.h>
#define LARDER_VALGRIND 1
#endif

namespace larder::cache::valgrind {

// Memcheck's view of a cache: a pool whose blocks are the objects with users. A put frees the block, so that any use
// of it is reported, and what is never put is a leak. Called on Valgrind only; nothing where its headers were missing.
#ifdef LARDER_VALGRIND
inline bool running() { return RUNNING_ON_VALGRIND != 0; }
inline void create_pool(const void* pool) { VALGRIND_CREATE_MEMPOOL(pool, 0, 0); }
inline void destroy_pool(const void* pool) { VALGRIND_DESTROY_MEMPOOL(pool); }
inline void allow(const void* start, std::size_t length) { VALGRIND_MAKE_MEM_DEFINED(start, length); }
inline void forbid(const void* start, std::size_t length) { VALGRIND_MAKE_MEM_NOACCESS(start, length); }
// An object keeps its contents, so it is defined from the start.
inline void allocate(const void* pool, const void* object, std::size_t size) {
  VALGRIND_MEMPOOL_ALLOC(pool, object, size);
  allow(object, size);
}
inline void free(const void* pool, const void* object) { VALGRIND_MEMPOOL_FREE(pool, object); }
inline void set_quiet(bool quiet) {
  if (quiet) {
    VALGRIND_DISABLE_ERROR_REPORTING;
  } else {
    VALGRIND_ENABLE_ERROR_REPORTING;
  }
}
#else
inline bool running() { return false; }
inline void create_pool(const void*) {}
inline void destroy_pool(const void*) {}
inline void allow(const void*, std::size_t) {}
inline void forbid(const void*, std::size_t) {}
inline void allocate(const void*, const void*, std::size_t) {}
inline void free(const void*, const void*) {}
inline void set_quiet(bool) {}
#endif

}  // namespace larder::cache::valgrind

// SPDX-License-Identifier: Apache-2.0
//
// What tests/valgrind/run has Memcheck look at: one use of a cache, as its argument says.
#include <chrono>
#include <cstdio>
#include <cstring>

#include <larder/keeper.h>
#include <larder/raw_cache.h>

namespace {

// Too large for the CPUs' arrays, where the address of what was there once would count as a pointer to it.
constexpr std::size_t size = 100'000;

struct counter {
  static larder::result<void> construct(void* object, void*) {
    std::memset(object, 1, size);
    return {};
  }
  static void destroy(void* object, void*) {
    if (*static_cast<char*>(object) != 1) std::puts("its contents are gone");
  }
};

[[gnu::noinline]] void lose_object(larder::raw_cache& cache) {
  if (cache.try_get() == nullptr) std::puts("no object");
}

}  // namespace

int main(int, char** arguments) {
  // The keeper's stack would be left with pointers into what it looked at, and what is lost would count as kept.
  if (!larder::configure_keeper({.period = std::chrono::hours(1)})) return 1;
  larder::raw_cache::options chosen;
  chosen.size = size;
  chosen.construct = &counter::construct;
  chosen.destroy = &counter::destroy;
  auto* cache = new larder::raw_cache("seen", chosen);
  const char* use = arguments[1];
  if (std::strcmp(use, "lose") == 0) {
    lose_object(*cache);
    return 0;  // with the cache, which would die of it
  }
  auto* object = static_cast<volatile char*>(cache->try_get());
  cache->put(const_cast<char*>(object));
  if (std::strcmp(use, "write") == 0) object[10] = 2;
  if (std::strcmp(use, "read") == 0) return object[10];
  // Free objects keep their contents, defined, through puts and gets, audits, and up to their destructors.
  for (int round = 0; round < 3; ++round) {
    void* several[3];
    if (cache->get_many(several, 3) != 3) return 1;
    for (void* each : several) {
      if (static_cast<char*>(each)[size - 1] != 1) std::puts("its contents are gone");
    }
    cache->put_many(several, 3);
    if (std::strcmp(use, "write") != 0) cache->audit();
  }
  cache->trim();
  delete cache;
}

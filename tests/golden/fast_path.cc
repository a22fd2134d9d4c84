// SPDX-License-Identifier: Apache-2.0
//
// What fast_path_test.py counts the instructions of: a get and a put as their users have them inlined. With
// LARDER_GOLDEN_LONGER each is one instruction longer, which must be noticed.
#include <larder/object_cache.h>

#ifdef LARDER_GOLDEN_LONGER
#define LARDER_GOLDEN_EXTRA asm volatile("nop")
#else
#define LARDER_GOLDEN_EXTRA static_cast<void>(0)
#endif

namespace {

struct plain {
  long words[8];
};

}  // namespace

extern "C" {

void* raw_get(larder::raw_cache& cache) {
  LARDER_GOLDEN_EXTRA;
  return cache.try_get();
}
void raw_put(larder::raw_cache& cache, void* object) {
  LARDER_GOLDEN_EXTRA;
  cache.put(object);
}
void* object_get(larder::object_cache<plain>& cache) {
  LARDER_GOLDEN_EXTRA;
  return cache.get();
}
void object_put(larder::object_cache<plain>& cache, void* object) {
  LARDER_GOLDEN_EXTRA;
  cache.put(static_cast<plain*>(object));
}
}

// SPDX-License-Identifier: Apache-2.0
//
// What fast_path_test.py counts the instructions of: gets, puts and switches as their users have them inlined.
#include <larder/coroutine.h>
#include <larder/object_cache.h>
#include <larder/pooled_frame.h>

#include "longer.h"

namespace {

struct plain {
  long words[8];
};

constexpr std::size_t frame_size = 200;  // known to the compiler, as it is to a coroutine's

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
void* frame_get() {
  LARDER_GOLDEN_EXTRA;
  return larder::pooled_frame::operator new(frame_size);
}
void frame_put(void* frame) {
  LARDER_GOLDEN_EXTRA;
  larder::pooled_frame::operator delete(frame, frame_size);
}
void* coroutine_resume(larder::coroutine& suspended, void* value) {
  LARDER_GOLDEN_EXTRA;
  return suspended.resume(value);
}
void* coroutine_yield(void* value) {
  LARDER_GOLDEN_EXTRA;
  return larder::coroutine::yield(value);
}
// The resumer's side: creates, resumes, resumes to the end, and destroys.
void coroutine_life() {
  LARDER_GOLDEN_EXTRA;
  larder::coroutine one([] { larder::coroutine::yield(); });
  one.resume();
  one.resume();
}
}

// SPDX-License-Identifier: Apache-2.0
//
// Frames are memory of a memory_resource, which makes caches and finds room. What is added is a table of its caches
// that stands at a fixed address: it is constant-initialised, so coroutines may be called before any constructor has
// run.
#include <larder/pooled_frame.h>

namespace larder {

constinit std::array<std::atomic<raw_cache*>, size_classes::count> pooled_frame::caches{};

memory_resource& pooled_frame::frames() noexcept {
  // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): without these few hundred bytes the process ends
  static auto* const instance = new memory_resource("frames");
  return *instance;
}

void* pooled_frame::take_below(std::size_t size) {
  void* frame = frames().allocate(size, alignment);
  const std::size_t number = size_classes::number_for(size, alignment);
  if (number != size_classes::count) {
    // Release: whoever loads the pointer sees the cache whole. All who come here store the same.
    caches[number].store(frames().cache_for(size, alignment), std::memory_order_release);
  }
  return frame;
}

void* pooled_frame::take_below_or_null(std::size_t size) noexcept {
  try {
    return take_below(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void pooled_frame::give_span(void* frame, std::size_t size) noexcept { frames().deallocate(frame, size, alignment); }

}  // namespace larder

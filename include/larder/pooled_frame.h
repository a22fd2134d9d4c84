// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <new>

#include <larder/export.h>
#include <larder/memory_resource.h>
#include <larder/raw_cache.h>

namespace larder {

// A base for the promise types of C++20 coroutines, whose frames then come from caches:
//
//   struct promise_type : larder::pooled_frame { ... };
//
// Frames are memory of the resource `frames`, charged to the process's budget: a get and a put, inlined, of the cache
// of its size class, by 64 bytes up to 1 KiB and by one part in eight above. A frame of more than 32 KiB is a span of
// its own. Each begins at a cache line. The caches are named frames/<size>, in the statistics and for LARDER_DEBUG;
// they are made when first needed and never destroyed.
//
// Any thread or task, any time; a frame may end on another thread than it began on. A call of a coroutine throws
// std::bad_alloc if there is no room, and may run reclaimers, as memory_resource does. A promise type that has
// get_return_object_on_allocation_failure() needs an `operator new` that does not throw:
//
//   static void* operator new(std::size_t size) noexcept { return pooled_frame::operator new(size, std::nothrow); }
class LARDER_API pooled_frame {
 public:
  // NOLINTNEXTLINE(misc-new-delete-overloads): a delete that is told the size is one
  static void* operator new(std::size_t size) {
    if (void* frame = take(size)) [[likely]]
      return frame;
    return take_below(size);
  }
  static void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    if (void* frame = take(size)) [[likely]]
      return frame;
    return take_below_or_null(size);
  }
  // Inlined by force: clang knows a frame's size, and so how little this is, only after it has decided.
  [[gnu::always_inline]] static void operator delete(void* frame, std::size_t size) noexcept {
    const std::size_t number = size_classes::number_for(size, alignment);
    if (number == size_classes::count) [[unlikely]]
      return give_span(frame, size);
    // Relaxed: the frame came from this cache to the caller, and its publication with it.
    caches[number].load(std::memory_order_relaxed)->put(frame);
  }

  // Where the frames come from: for its figures, to trim it, or to keep frames of a size reserved. Never destroyed.
  static memory_resource& frames() noexcept;

 private:
  static constexpr std::size_t alignment = 64;

  static void* take(std::size_t size) {
    const std::size_t number = size_classes::number_for(size, alignment);
    if (number == size_classes::count) [[unlikely]]
      return nullptr;
    // Acquire: the partner of the publication in take_below.
    raw_cache* cache = caches[number].load(std::memory_order_acquire);
    return cache != nullptr ? cache->try_get() : nullptr;
  }
  static void* take_below(std::size_t size);
  static void* take_below_or_null(std::size_t size) noexcept;
  static void give_span(void* frame, std::size_t size) noexcept;

  // The caches of `frames()` where inlined code finds them without a call: by number, each set once it has given a
  // frame.
  static std::array<std::atomic<raw_cache*>, size_classes::count> caches;
};

}  // namespace larder

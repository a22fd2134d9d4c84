// SPDX-License-Identifier: Apache-2.0
//
// Reading a page that nobody holds. A frame has a generation, which is moved on before the frame gets another page or
// is given back, by the one thread that has it then: after it became `unused`, and before its bytes change. The reader
// loads the generation, sees in the state that the frame is valid and in its key that the page is the one it looks for,
// copies, and loads the generation again. If that is the same, the frame was not moved on meanwhile, so it held the
// page from the first look until after the last byte was copied (a look that saw it valid after it was moved on would
// have seen the new generation already). If not, what was copied is anybody's, and is not said to be read.
//
// The bytes of a page may be changed in place by those who hold it, at any time. Then each byte is the old or the new
// one, as with read().
//
// Orders: the state is loaded with acquire, partner of publish, so that what was read in is seen, and the generation
// before it likewise. Copying races with whoever fills the frame anew: its bytes are no atomics, for the kernel writes
// them, so the copy is one that ThreadSanitizer does not watch, between fences as in any sequence lock.
#include <cstring>

#include "base/check.h"
#include "base/mutant.h"
#include "base/sanitizers.h"
#include "page/cache_core.h"

namespace larder::page {
namespace {

#ifdef LARDER_THREAD_SANITIZER
// Not memcpy, whose calls are watched whoever makes them; volatile, so that it does not become one.
__attribute__((noinline, no_sanitize("thread"))) void copy_unwatched(std::byte* into, const std::byte* from,
                                                                     std::size_t length) {
  const volatile std::byte* source = from;
  for (std::size_t i = 0; i < length; ++i) into[i] = source[i];
}
void order_loads_before() {}
void order_before_stores() {}
#else
void copy_unwatched(std::byte* into, const std::byte* from, std::size_t length) { std::memcpy(into, from, length); }
void order_loads_before() { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
void order_before_stores() { __atomic_thread_fence(__ATOMIC_RELEASE); }
#endif

}  // namespace

void cache_core::begin_generation(frame& page) {
  // One thread has the frame. Relaxed: the fence orders it before the bytes.
  page.generation.store(page.generation.load(base::memory_order_relaxed) + 1, base::memory_order_relaxed);
  order_before_stores();
}

[[gnu::always_inline]] inline bool cache_core::try_read(const file& owner, std::uint64_t number, std::size_t first,
                                                        std::span<std::byte> into) {
  frame* at = table_.look_up(owner, number);
  if (at == nullptr) [[unlikely]]
    return false;
  const std::uint64_t generation = at->generation.load(base::memory_order_acquire);
  const state_word seen = at->state.load(base::memory_order_acquire);
  if ((seen & valid) == 0) [[unlikely]]
    return false;
  if (!page_table::holds(*at, owner, number)) [[unlikely]]
    return false;
  copy_unwatched(into.data(), arena_.data_of(*at) + first, into.size());
  order_loads_before();
  const bool moved_on = at->generation.load(base::memory_order_relaxed) != generation;
  if (moved_on && !base::is_mutant(base::mutant::read_not_validated)) [[unlikely]]
    return false;
  // The frame may be another page's by now, which then has a mark too many.
  note_hit(*at, seen);
  return true;
}

}  // namespace larder::page

namespace larder {

// Here, so that the two are one.
bool cached_file::try_read(std::uint64_t offset, std::span<std::byte> into) {
  const auto first = static_cast<std::size_t>(offset & (file_.page_length() - 1));
  if (into.size() > file_.page_length() - first) [[unlikely]]
    return false;
  if (offset > file_.size) [[unlikely]]
    return false;
  if (into.size() > file_.size - offset) [[unlikely]]
    return false;
  if (file_.core.hears_of_hits()) [[unlikely]]
    return false;  // a page that is not held cannot be told of
  return file_.core.try_read(file_, file_.page_of(offset), first, into);
}

}  // namespace larder

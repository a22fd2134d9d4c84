// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/result.h>
#include <larder/units.h>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "cache/span.h"

namespace larder::cache {

// How objects lie in a slab. The slab is aligned to a power of two that is at least its length, so the slab of an
// object is a mask away, whatever the object's size (KF-8):
//
//   | header, bitmaps |pad| object 0 | object 1 | … | object capacity − 1 | debug table | rest |
//   ^ slab                ^ first_offset                                    ^ table_offset       ^ shape.length
//
// With margins (debug_layer.h) there are `before` bytes before each object, and at least `after` bytes after each.
struct slab_margins {
  std::size_t before = 0;
  std::size_t after = 0;
  std::size_t table_head = 0;  // of the slab's debug table; the next is its entry for each object
  std::size_t table_entry = 0;
};

struct slab_geometry {
  static constexpr std::size_t size_max = std::size_t{1} << 30;
  static constexpr std::size_t alignment_max = page_size;
  static constexpr std::size_t capacity_max = 0xffff;

  std::size_t object_size = 0;  // as asked for
  std::size_t stride = 0;       // from one object to the next
  std::size_t first_offset = 0;
  std::size_t capacity = 0;
  std::size_t bitmap_words = 0;  // of each bitmap
  slab_margins margins;
  std::size_t table_offset = 0;
  span_shape shape;

  // The layout for objects of this kind. EINVAL if size or alignment is out of range, or the uncharged part is not less
  // than the object or not whole pages.
  static result<slab_geometry> choose(std::size_t size, std::size_t alignment, bytes uncharged_per_object,
                                      const slab_margins& margins = {});
  // The shortest layout that holds `capacity` objects.
  static slab_geometry with_capacity(std::size_t size, std::size_t alignment, bytes uncharged_per_object,
                                     std::size_t capacity, const slab_margins& margins = {});
};

struct group_tag;
struct spare_tag;

// The header of a slab, at its start. State of each object, in bitmaps because a free object keeps its contents:
//
//   free ∧ built      spare: ready to be handed out
//   free ∧ ¬built     memory, not an object
//   ¬free ∧ built     handed out: with a user, in a CPU's array, or under its constructor
//
//   free_count = |free|    built_count = |built|    spare_count = |free ∧ built|    ¬free ⇒ built
//
// Everything here is guarded by the slab layer's owner, but for the `out` bits of debug builds (note_out). With bitmaps
// for 64 objects it takes 64 bytes, so that 63 objects of 64 bytes fit into a page.
class slab : public base::list_link<group_tag>, public base::list_link<spare_tag> {
 public:
  // Makes a header at the start of zeroed memory; all objects free, none built.
  static slab* make(void* memory, const slab_geometry& geometry);

  // The object, now handed out; null if no free object is built, or none is left to build.
  void* take_spare();
  void* take_unbuilt();
  // Makes object number `index`, which is not free, free again.
  void give(std::size_t index, bool built);
  // Says that a free object is built, or is not any longer.
  void set_built(std::size_t index, bool built);

  bool is_built(std::size_t index) const { return test(built_bits(), index); }
  bool is_free(std::size_t index) const { return test(free_bits(), index); }
  void* object(std::size_t index) const { return bytes_of() + geometry().first_offset + index * geometry().stride; }
  // The number of the object that starts at `object`; capacity if none does.
  std::size_t index_of(const void* object) const;

  std::size_t free_count() const { return free_count_; }
  std::size_t built_count() const { return built_count_; }
  std::size_t spare_count() const { return spare_count_; }
  std::size_t capacity() const { return geometry().capacity; }
  // For the slab layer's owner: when an object last came or went, as the layer counts time.
  std::uint16_t changed() const { return changed_; }
  void note_changed(std::uint16_t period) { changed_ = period; }
  // Whether this is a slab of the cache with this layout (the object, not its value).
  bool is_of(const slab_geometry& layout) const { return mark_ == mark_of(layout); }

  // Debug builds know which objects are with users, without a lock: false if the object was (not) already.
  bool note_out(std::size_t index, bool out);

  void audit(const char* cache_name) const;
  static std::size_t header_length(std::size_t bitmap_words);

 private:
  explicit slab(const slab_geometry& geometry);

  using word = std::uint64_t;
  static constexpr std::uint64_t magic = 0x6c61726465722e73;
#ifdef LARDER_DEBUG_CHECKS
  static constexpr std::size_t bitmaps = 3;
#else
  static constexpr std::size_t bitmaps = 2;
#endif
  static bool test(const word* bits, std::size_t index) { return (bits[index / 64] >> (index % 64) & 1) != 0; }
  static std::size_t count(const word* bits, std::size_t words);

  // Says in one word that this is a slab, and whose.
  static std::uint64_t mark_of(const slab_geometry& layout) {
    return reinterpret_cast<std::uintptr_t>(&layout) ^ magic;
  }
  const slab_geometry& geometry() const { return *reinterpret_cast<const slab_geometry*>(mark_ ^ magic); }
  char* bytes_of() const { return reinterpret_cast<char*>(const_cast<slab*>(this)); }
  word* free_bits() const { return reinterpret_cast<word*>(bytes_of() + sizeof(slab)); }
  word* built_bits() const { return free_bits() + geometry().bitmap_words; }
  base::atomic<word>* out_bits() const {
    return reinterpret_cast<base::atomic<word>*>(built_bits() + geometry().bitmap_words);
  }

  const std::uint64_t mark_;
  std::uint16_t free_count_;
  std::uint16_t built_count_ = 0;
  std::uint16_t spare_count_ = 0;
  std::uint16_t changed_ = 0;
};
static_assert(sizeof(slab) == 48);

}  // namespace larder::cache

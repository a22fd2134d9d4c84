// SPDX-License-Identifier: Apache-2.0
#include "cache/slab.h"

#include <algorithm>
#include <bit>
#include <new>

#include "base/check.h"

namespace larder::cache {
namespace {

// A smaller object could not even hold the pointer by which a CPU's array knows it.
constexpr std::size_t stride_min = 8;
// Memory in a slab that is not objects: at most one part in 8.
constexpr std::size_t waste_share = 8;
// A slab serves several objects, so that mapping and charging cost little for each; but large ones come few at a time,
// because a slab is also the least that an almost idle cache holds: three 20 KiB stacks, one of 64 KiB.
constexpr std::size_t objects_min = 8;
constexpr std::size_t large_slab_length = std::size_t{64} << 10;
constexpr std::size_t table_alignment = 16;

std::size_t stride_of(std::size_t size, std::size_t alignment, const slab_margins& margins) {
  return round_up(std::max(size, stride_min) + margins.before + margins.after, alignment);
}

}  // namespace

std::size_t slab::header_length(std::size_t bitmap_words) {
  return sizeof(slab) + bitmaps * bitmap_words * sizeof(word);
}

slab_geometry slab_geometry::with_capacity(std::size_t size, std::size_t alignment, bytes uncharged_per_object,
                                           std::size_t capacity, const slab_margins& margins) {
  slab_geometry made;
  made.object_size = size;
  made.margins = margins;
  made.stride = stride_of(size, alignment, margins);
  made.capacity = capacity;
  made.bitmap_words = (capacity + 63) / 64;
  // Objects that are aligned to pages leave the header a page of its own.
  made.first_offset = round_up(slab::header_length(made.bitmap_words) + margins.before, alignment);
  made.table_offset = round_up(made.first_offset + capacity * made.stride, table_alignment);
  const std::size_t end = made.first_offset + capacity * made.stride;
  made.shape.length = round_up_to_pages(
      bytes{margins.table_head == 0 ? end : made.table_offset + margins.table_head + capacity * margins.table_entry});
  made.shape.alignment = std::bit_ceil(made.shape.length.count);
  made.shape.charge = made.shape.length - uncharged_per_object * capacity;
  return made;
}

result<slab_geometry> slab_geometry::choose(std::size_t size, std::size_t alignment, bytes uncharged_per_object,
                                            const slab_margins& margins) {
  if (size == 0 || size > size_max || !std::has_single_bit(alignment) || alignment > alignment_max ||
      uncharged_per_object.count >= size || uncharged_per_object.count % page_size != 0) {
    return error_from(EINVAL);
  }
  const std::size_t stride = stride_of(size, alignment, margins);
  std::size_t capacity = std::clamp<std::size_t>(large_slab_length / stride, 1, objects_min);
  // Header, padding and rest are less than two pages and 3 % (bitmaps), so this ends well under 128 KiB of objects.
  for (;;) {
    slab_geometry made = with_capacity(size, alignment, uncharged_per_object, capacity, margins);
    for (;;) {  // what the last page has room for besides
      const slab_geometry larger = with_capacity(size, alignment, uncharged_per_object, made.capacity + 1, margins);
      if (larger.shape.length > made.shape.length) break;
      made = larger;
    }
    const std::size_t waste = made.shape.length.count - made.capacity * (made.stride + margins.table_entry);
    if (waste * waste_share <= made.shape.length.count) return made;
    capacity = made.capacity + 1;
  }
}

slab* slab::make(void* memory, const slab_geometry& geometry) {
  LARDER_CHECK(geometry.capacity <= slab_geometry::capacity_max, "a slab of %zu objects", geometry.capacity);
  return ::new (memory) slab(geometry);
}

slab::slab(const slab_geometry& layout)
    : mark_(mark_of(layout)), free_count_(static_cast<std::uint16_t>(layout.capacity)) {
  for (std::size_t left = layout.capacity, at = 0; left > 0; ++at) {
    const std::size_t here = std::min<std::size_t>(left, 64);
    free_bits()[at] = here == 64 ? ~word{0} : (word{1} << here) - 1;
    left -= here;
  }
}

void* slab::take_spare() {
  if (spare_count_ == 0) return nullptr;
  std::size_t at = 0;
  while ((free_bits()[at] & built_bits()[at]) == 0) ++at;
  const word spare = free_bits()[at] & built_bits()[at];
  free_bits()[at] &= ~(spare & -spare);
  --free_count_;
  --spare_count_;
  return object(at * 64 + static_cast<std::size_t>(std::countr_zero(spare)));
}

void* slab::take_unbuilt() {
  if (free_count_ == spare_count_) return nullptr;
  std::size_t at = 0;
  while ((free_bits()[at] & ~built_bits()[at]) == 0) ++at;
  const word unbuilt = free_bits()[at] & ~built_bits()[at];
  const word lowest = unbuilt & -unbuilt;
  free_bits()[at] &= ~lowest;
  built_bits()[at] |= lowest;
  --free_count_;
  ++built_count_;
  return object(at * 64 + static_cast<std::size_t>(std::countr_zero(unbuilt)));
}

void slab::give(std::size_t index, bool built) {
  free_bits()[index / 64] |= word{1} << (index % 64);
  ++free_count_;
  ++spare_count_;
  if (!built) set_built(index, false);
}

void slab::set_built(std::size_t index, bool built) {
  const word bit = word{1} << (index % 64);
  if (built) {
    built_bits()[index / 64] |= bit;
    ++built_count_;
    ++spare_count_;
  } else {
    built_bits()[index / 64] &= ~bit;
    --built_count_;
    --spare_count_;
  }
}

std::size_t slab::index_of(const void* object) const {
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(object) - bytes_of());
  if (offset < geometry().first_offset) return geometry().capacity;
  // Both fit in 32 bits (size_max), where division is faster.
  const auto from_first = static_cast<std::uint32_t>(offset - geometry().first_offset);
  const auto stride = static_cast<std::uint32_t>(geometry().stride);
  const std::uint32_t index = from_first / stride;
  return index * stride == from_first && index < geometry().capacity ? index : geometry().capacity;
}

bool slab::note_out([[maybe_unused]] std::size_t index, [[maybe_unused]] bool out) {
#ifdef LARDER_DEBUG_CHECKS
  const word bit = word{1} << (index % 64);
  base::atomic<word>& bits = out_bits()[index / 64];
  const word before = out ? bits.fetch_or(bit) : bits.fetch_and(~bit);
  return ((before & bit) != 0) != out;
#else
  return true;
#endif
}

std::size_t slab::count(const word* bits, std::size_t words) {
  std::size_t sum = 0;
  for (std::size_t at = 0; at < words; ++at) sum += static_cast<std::size_t>(std::popcount(bits[at]));
  return sum;
}

void slab::audit(const char* cache_name) const {
  const std::size_t words = geometry().bitmap_words;
  const auto* here = static_cast<const void*>(this);
  LARDER_CHECK((mark_ >> 48) == (magic >> 48), "cache \"%s\": slab %p has lost its mark", cache_name, here);
  LARDER_CHECK(count(free_bits(), words) == free_count_, "cache \"%s\": slab %p: %zu free counted, %zu marked",
               cache_name, here, free_count(), count(free_bits(), words));
  LARDER_CHECK(count(built_bits(), words) == built_count_, "cache \"%s\": slab %p: %zu built counted, %zu marked",
               cache_name, here, built_count(), count(built_bits(), words));
  std::size_t spare = 0;
  for (std::size_t index = 0; index < geometry().capacity; ++index) {
    LARDER_CHECK(is_free(index) || is_built(index), "cache \"%s\": slab %p: object %zu is out, but not built",
                 cache_name, here, index);
    if (is_free(index) && is_built(index)) ++spare;
  }
  LARDER_CHECK(spare == spare_count_, "cache \"%s\": slab %p: %zu spare counted, %zu marked", cache_name, here,
               spare_count(), spare);
  for (std::size_t index = geometry().capacity; index < words * 64; ++index) {
    LARDER_CHECK(!is_free(index) && !is_built(index), "cache \"%s\": slab %p: object %zu past the end", cache_name,
                 here, index);
  }
}

}  // namespace larder::cache

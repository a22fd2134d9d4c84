// SPDX-License-Identifier: Apache-2.0
#include "cache/slab_source.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "os/memory.h"

namespace larder::cache {

slab_source::~slab_source() {
  LARDER_CHECK(chunks_.empty() || may_lack_slabs_, "slabs of %zu chunks were not given back", chunks_.size());
  while (!chunks_.empty()) unmap_chunk(chunks_.begin());
}

std::size_t slab_source::next_chunk_slabs() const {
  const std::size_t by_length = std::max<std::size_t>(1, chunk_length_max / shape_.alignment);
  return std::clamp<std::size_t>(slabs_, 1, std::min(chunk_slabs_max, by_length));
}

// Slabs stand at multiples of their alignment, so that an object's slab is a mask away.
slab_source::chunk_map::iterator slab_source::map_chunk(std::size_t slabs) {
  const bytes length = bytes{shape_.alignment * (slabs - 1)} + shape_.length;
  const result<void*> mapped = os::map(length, shape_.alignment);
  if (!mapped) return chunks_.end();
  slabs_ += slabs;
  const chunk fresh{slabs, ~std::uint64_t{0} >> (64 - slabs)};
  return chunks_.emplace(reinterpret_cast<std::uintptr_t>(*mapped), fresh).first;
}

void slab_source::unmap_chunk(chunk_map::iterator emptied) {
  const chunk& gone = emptied->second;
  os::unmap(reinterpret_cast<void*>(emptied->first), bytes{shape_.alignment * (gone.slabs - 1)} + shape_.length);
  slabs_ -= gone.slabs;
  chunks_.erase(emptied);
}

result<void*> slab_source::take_charged() {
  const base::lock locked(guard_);
  auto from = chunks_.find(with_room_);
  if (from == chunks_.end() || from->second.free == 0) {
    from = std::find_if(chunks_.begin(), chunks_.end(), [](const auto& each) { return each.second.free != 0; });
  }
  if (from == chunks_.end()) {
    const std::size_t wanted = next_chunk_slabs();
    from = map_chunk(wanted);
    if (from == chunks_.end() && wanted > 1) from = map_chunk(1);
  }
  if (from == chunks_.end()) {
    budget_.release(shape_.charge);
    return error_from(ENOMEM);
  }
  with_room_ = from->first;
  const auto index = static_cast<std::size_t>(std::countr_zero(from->second.free));
  from->second.free &= from->second.free - 1;
  ++from->second.in_use;
  return reinterpret_cast<void*>(from->first + index * shape_.alignment);
}

void slab_source::give_back(void* slab) {
  {
    const base::lock locked(guard_);
    const auto address = reinterpret_cast<std::uintptr_t>(slab);
    auto home = std::prev(chunks_.upper_bound(address));
    chunk& at = home->second;
    if (--at.in_use == 0) {
      unmap_chunk(home);
    } else if (os::discard(slab, shape_.length)) {
      at.free |= std::uint64_t{1} << ((address - home->first) / shape_.alignment);
      with_room_ = home->first;
    } else {
      // The pages go with their addresses, which are not used again.
      os::unmap(slab, shape_.length);
    }
  }
  budget_.release(shape_.charge);
}

std::size_t slab_source::chunks() const {
  const base::lock locked(guard_);
  return chunks_.size();
}

}  // namespace larder::cache

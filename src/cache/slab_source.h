// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include <larder/memory_budget.h>
#include <larder/result.h>

#include "base/mutex.h"
#include "cache/span.h"

namespace larder::cache {

// Where a cache's slabs come from and go to. Address space is mapped for many slabs at a time, a *chunk*, and a slab
// that goes gives its pages back but leaves its addresses to the next: so a million slabs take some thousand mappings,
// of which the system allows a process 65,530 (KF-31), and a slab costs no mmap. A chunk whose slabs are all gone is
// unmapped.
//
// The first chunk is one slab, each further one as long as all before it, up to chunk_slabs_max or chunk_length_max.
// Pages that no slab has are never touched, so they cost nothing and are not charged; nor are the 100 bytes of the heap
// that a chunk takes.
//
// Any thread; its lock is held while the system is called.
class slab_source {
 public:
  slab_source(memory_budget& budget, const span_shape& shape) : budget_(budget), shape_(shape) {}
  // Every slab was given back.
  ~slab_source();
  slab_source(const slab_source&) = delete;
  slab_source& operator=(const slab_source&) = delete;

  // A slab's memory, zeroed, which the caller has charged; on failure the charge is given back. ENOMEM.
  result<void*> take_charged();
  // Gives the pages back to the system, then releases the charge.
  void give_back(void* slab);

  // Mappings, or less where the system joins neighbours.
  std::size_t chunks() const;

  void lock_for_fork() { guard_.lock_for_fork(); }
  void unlock_after_fork() { guard_.unlock_after_fork(); }
  // In a forked child: slabs that the parent's other threads had in hand will not come back.
  void forget_lost() { may_lack_slabs_ = true; }

 private:
  static constexpr std::size_t chunk_slabs_max = 64;  // so that a word says which are free
  static constexpr std::size_t chunk_length_max = std::size_t{16} << 20;
  struct chunk {
    std::size_t slabs;
    std::uint64_t free;      // bit i ⇔ slab i may be taken
    std::size_t in_use = 0;  // slabs that are taken
  };
  using chunk_map = std::map<std::uintptr_t, chunk>;

  std::size_t next_chunk_slabs() const;
  chunk_map::iterator map_chunk(std::size_t slabs);
  void unmap_chunk(chunk_map::iterator emptied);

  memory_budget& budget_;
  const span_shape shape_;
  mutable base::mutex guard_{base::lock_rank::cache_source};
  chunk_map chunks_;  // guarded by guard_, like what follows; by address
  bool may_lack_slabs_ = false;
  std::size_t slabs_ = 0;         // of all chunks
  std::uintptr_t with_room_ = 0;  // the chunk where a slab came free or was left last; a hint
};

}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "cache/debug_trace.h"
#include "cache/slab.h"

namespace larder::cache {

class debug_layer;
struct bucket_tag;
struct layer_tag;

enum class object_state : std::uint32_t { unbuilt, constructing, free, out, resetting, destroying, destroyed };

// What a debug layer knows of one object. Written by whoever owns the object; `state` tells others.
struct alignas(debug_trace) debug_record {
  static constexpr std::size_t pieces = 8;
  base::atomic<object_state> state{object_state::unbuilt};
  std::uint32_t sums[pieces] = {};  // of the pieces of its contents, while it is free
};
// With `audit`, a record is followed by these. Guarded by debug_table::guard(), so that a report may read them.
struct debug_owners {
  debug_trace got;
  debug_trace put;
};

// The records of a slab's objects, at the slab's end, where overruns of objects do not reach; charged as part of it.
// All slabs of all caches with a debug layer are in one hash table, so that any pointer at all can be looked up.
class debug_table : public base::list_link<bucket_tag>, public base::list_link<layer_tag> {
 public:
  debug_table(const debug_layer& of, slab& described) : layer(of), owner(described) {}
  static debug_table& of(const slab& described, const slab_geometry& geometry) {
    return *reinterpret_cast<debug_table*>(reinterpret_cast<char*>(const_cast<slab*>(&described)) +
                                           geometry.table_offset);
  }
  debug_record& record(const slab_geometry& geometry, std::size_t index) {
    return *reinterpret_cast<debug_record*>(reinterpret_cast<char*>(this + 1) + index * geometry.margins.table_entry);
  }
  static debug_owners& owners(const debug_record& record) {
    return *reinterpret_cast<debug_owners*>(const_cast<debug_record*>(&record) + 1);
  }

  // Guards the hash table, the layers' lists and all owners.
  static base::mutex& guard();
  // With the guard held.
  static void insert(debug_table& added);
  static void remove(debug_table& removed);
  // The slab that holds the address, of this alignment or of any; or null.
  static debug_table* find(const void* address, std::size_t alignment);
  static debug_table* find(const void* address);

  static void add(debug_layer& layer);
  static void remove(debug_layer& layer);
  // Every live layer's slabs.
  template <typename Visitor>
  static void for_each_slab(const Visitor& visit);

  const debug_layer& layer;
  slab& owner;

 private:
  struct directory;
  static directory& all();
};

}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#include "cache/debug_table.h"

#include <algorithm>
#include <bit>
#include <map>

#include <larder/debug.h>

#include "cache/debug_layer.h"
#include "os/fork.h"

namespace larder::cache {

struct debug_table::directory final : os::fork_participant {
  directory() : os::fork_participant(base::lock_rank::cache_debug) {}
  void before_fork() override { guard.lock_for_fork(); }
  void in_parent() override { guard.unlock_after_fork(); }
  void in_child() override { guard.unlock_after_fork(); }

  // Chains stay short up to some 10,000 slabs; what is never touched of it is never resident.
  static constexpr std::size_t buckets = 4096;

  static std::size_t bucket_of(std::uintptr_t slab_address) {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;  // 2^64 / φ: spreads neighbours
    return slab_address / page_size * golden >> (64 - std::bit_width(buckets - 1));
  }

  base::mutex guard{base::lock_rank::cache_debug};
  std::array<base::intrusive_list<debug_table, bucket_tag>, buckets> chains;
  base::intrusive_list<debug_layer, layer_tag> layers;
};

// Never destroyed: caches with static storage may outlive any order of destruction.
debug_table::directory& debug_table::all() {
  static auto* instance = [] {
    auto* made = new directory;
    os::join_forks(*made);
    return made;
  }();
  return *instance;
}

base::mutex& debug_table::guard() { return all().guard; }

void debug_table::insert(debug_table& added) {
  all().chains[directory::bucket_of(reinterpret_cast<std::uintptr_t>(&added.owner))].push_front(added);
}
void debug_table::remove(debug_table& removed) { base::intrusive_list<debug_table, bucket_tag>::remove(removed); }
void debug_table::add(debug_layer& layer) { all().layers.push_back(layer); }
void debug_table::remove(debug_layer& layer) { base::intrusive_list<debug_layer, layer_tag>::remove(layer); }

debug_table* debug_table::find(const void* address, std::size_t alignment) {
  const auto start = reinterpret_cast<std::uintptr_t>(address) & ~(alignment - 1);
  auto& chain = all().chains[directory::bucket_of(start)];
  for (debug_table* at = chain.front(); at != nullptr; at = chain.after(*at)) {
    if (reinterpret_cast<std::uintptr_t>(&at->owner) == start) return at;
  }
  return nullptr;
}

debug_table* debug_table::find(const void* address) {
  // Slabs are aligned to a power of two, at most twice that of the largest object.
  for (std::size_t alignment = page_size; alignment <= 4 * slab_geometry::size_max; alignment *= 2) {
    debug_table* found = find(address, alignment);
    if (found != nullptr &&
        static_cast<std::size_t>(static_cast<const char*>(address) - reinterpret_cast<const char*>(&found->owner)) <
            found->layer.geometry_.shape.length.count) {
      return found;
    }
  }
  return nullptr;
}

template <typename Visitor>
void debug_table::for_each_slab(const Visitor& visit) {
  auto& layers = all().layers;
  for (debug_layer* layer = layers.front(); layer != nullptr; layer = layers.after(*layer)) {
    for (debug_table* at = layer->slabs_.front(); at != nullptr; at = layer->slabs_.after(*at)) {
      visit(*at, layer->geometry_, layer->traces());
    }
  }
}

std::vector<leak> find_leaks_of(const debug_layer* only) {
  std::map<std::vector<void*>, leak> by_stack;
  {
    const base::lock locked(debug_table::guard());
    debug_table::for_each_slab([&](debug_table& table, const slab_geometry& geometry, bool traces) {
      if (!traces || (only != nullptr && &table.layer != only)) return;
      for (std::size_t number = 0; number < geometry.capacity; ++number) {
        const debug_record& record = table.record(geometry, number);
        if (record.state.load() != object_state::out) continue;
        const debug_trace& got = debug_table::owners(record).got;
        leak& found = by_stack[std::vector<void*>(got.frames, got.frames + got.depth)];
        ++found.objects;
        found.bytes += geometry.object_size;
        auto share = std::find_if(found.caches.begin(), found.caches.end(),
                                  [&](const leak::share& each) { return each.cache == table.layer.name(); });
        if (share == found.caches.end()) share = found.caches.insert(share, {table.layer.name(), 0});
        ++share->objects;
      }
    });
  }
  std::vector<leak> found;
  for (auto& [stack, each] : by_stack) {
    each.stack = stack;
    std::sort(each.caches.begin(), each.caches.end(), [](const auto& a, const auto& b) { return a.cache < b.cache; });
    found.push_back(std::move(each));
  }
  std::stable_sort(found.begin(), found.end(), [](const leak& a, const leak& b) { return a.objects > b.objects; });
  return found;
}

std::string describe_leaks(const std::vector<leak>& leaks) {
  std::string text;
  for (const leak& each : leaks) {
    text += std::to_string(each.objects) + (each.objects == 1 ? " object" : " objects") + " out (" +
            std::to_string(each.bytes) + " bytes), of";
    for (const leak::share& share : each.caches) {
      text += (&share == each.caches.data() ? " \"" : ", \"") + share.cache + "\": " + std::to_string(share.objects);
    }
    text += ", got by:\n";
    for (void* frame : each.stack) text += "    " + describe_frame(frame) + "\n";
  }
  return text;
}

}  // namespace larder::cache

namespace larder {

std::vector<leak> find_leaks() { return cache::find_leaks_of(nullptr); }
std::string report_leaks() { return cache::describe_leaks(find_leaks()); }

}  // namespace larder

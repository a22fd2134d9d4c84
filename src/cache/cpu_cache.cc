// SPDX-License-Identifier: Apache-2.0
//
// The sharded CPU layer. Each CPU that can ever appear has an array (KF-13) with a lock of one word, which is nearly
// always free: only a thread that was preempted or migrated inside a section, or a collector from elsewhere, holds it
// when another comes. So users only try it, and go to the slabs where it is taken; who must have it spins briefly, then
// sleeps a little, which also lets a holder of lower priority run. A pop or push costs one atomic exchange.
#include "cache/cpu_cache.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "cache/span.h"

namespace larder::cache {
namespace {

// Objects in an array: so that the slabs' lock is taken once in 62 operations, and an array with its head is 1 KiB.
constexpr std::size_t capacity_max = 124;
// Memory in an array: what a CPU's second-level cache might still hold. Larger objects cost more to use than to fetch
// from their slab, and few of them would hoard much: four of 16 KiB, one of 64 KiB, none above.
constexpr std::size_t array_bytes_max = std::size_t{64} << 10;

constexpr span_shape page_shape{bytes{page_size}, page_size, bytes{page_size}};
// Two cache lines, which the hardware fetches in pairs.
constexpr std::size_t shard_alignment = 128;

}  // namespace

std::size_t cpu_cache::capacity_for(std::size_t object_size) {
  return std::min(capacity_max, array_bytes_max / object_size);
}

raw_cache::mode cpu_cache::active_mode() {
  return {"sharded", "this build has a lock per CPU, no restartable sequences"};
}

cpu_cache::cpu_cache(memory_budget& budget, std::size_t capacity)
    : budget_(budget),
      capacity_(std::min(capacity, capacity_max)),
      cpus_(os::possible_cpus()),
      shard_length_(round_up(sizeof(shard) + capacity_ * sizeof(void*), shard_alignment)),
      shards_per_page_(page_size / shard_length_),
      pages_(new base::atomic<char*>[page_of(cpus_ - 1) + 1]()) {
  static_assert(batch_max * 2 == capacity_max);
  static_assert(sizeof(shard) + capacity_max * sizeof(void*) <= 1024);
}

cpu_cache::~cpu_cache() {
  for (std::size_t at = 0; at <= page_of(cpus_ - 1); ++at) {
    if (char* page = pages_[at].load(base::memory_order_relaxed)) unmap_span(budget_, page_shape, page);
  }
}

bool cpu_cache::make_array() {
  if (capacity_ == 0) return false;
  base::atomic<char*>& page = pages_[page_of(current_cpu())];
  // Relaxed: pages are stored under the caller's mutex only.
  if (page.load(base::memory_order_relaxed) != nullptr) return true;
  const result<void*> mapped = map_span(budget_, page_shape);
  if (!mapped) return false;
  // Zeroed memory is a page of unlocked empty arrays.
  page.store(static_cast<char*>(*mapped), base::memory_order_release);  // partner: shard_of
  return true;
}

void cpu_cache::shard::lock() {
  constexpr int spins = 100;
  constexpr auto pause = std::chrono::microseconds(20);
  for (int tries = 1; !try_lock(); ++tries) {
    if (tries >= spins) std::this_thread::sleep_for(pause);
  }
}

std::size_t cpu_cache::pop_many(void** objects, std::size_t count) {
  shard* mine = current_shard();
  if (mine == nullptr || !mine->try_lock()) return 0;
  const std::size_t moved = std::min<std::size_t>(count, mine->count);
  for (std::size_t i = 0; i < moved; ++i) objects[i] = mine->objects()[--mine->count];
  mine->gets += moved;
  mine->unlock();
  return moved;
}

std::size_t cpu_cache::push_many(void* const* objects, std::size_t count) {
  shard* mine = current_shard();
  if (mine == nullptr || !mine->try_lock()) return 0;
  const std::size_t moved = std::min(count, capacity_ - mine->count);
  for (std::size_t i = 0; i < moved; ++i) mine->objects()[mine->count++] = objects[i];
  mine->puts += moved;
  mine->unlock();
  return moved;
}

std::size_t cpu_cache::flush(void** objects) {
  shard* mine = current_shard();
  if (mine == nullptr) return 0;
  mine->lock();
  const std::size_t moved = std::min<std::size_t>(batch(), mine->count);
  std::copy_n(mine->objects(), moved, objects);
  mine->count -= static_cast<std::uint32_t>(moved);
  std::memmove(mine->objects(), mine->objects() + moved, mine->count * sizeof(void*));
  mine->unlock();
  return moved;
}

std::size_t cpu_cache::refill(void* const* objects, std::size_t count) {
  shard* mine = current_shard();
  if (mine == nullptr) return 0;
  mine->lock();
  const std::size_t moved = std::min(count, capacity_ - mine->count);
  for (std::size_t i = 0; i < moved; ++i) mine->objects()[mine->count++] = objects[i];
  mine->unlock();
  return moved;
}

std::size_t cpu_cache::collect_from(int cpu, void** objects, std::size_t count) {
  shard* theirs = capacity_ == 0 ? nullptr : shard_of(cpu);
  if (theirs == nullptr) return 0;
  theirs->lock();
  const std::size_t moved = std::min<std::size_t>(count, theirs->count);
  for (std::size_t i = 0; i < moved; ++i) objects[i] = theirs->objects()[--theirs->count];
  theirs->unlock();
  return moved;
}

cpu_cache::figures cpu_cache::sum() const {
  figures total;
  if (capacity_ == 0) return total;
  for (std::size_t at = 0; at <= page_of(cpus_ - 1); ++at) {
    if (pages_[at].load(base::memory_order_relaxed) != nullptr) total.charged += page_shape.charge;
  }
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    shard* each = shard_of(cpu);
    if (each == nullptr) continue;
    each->lock();
    total.cached += each->count;
    total.gets += each->gets;
    total.puts += each->puts;
    each->unlock();
  }
  return total;
}

}  // namespace larder::cache

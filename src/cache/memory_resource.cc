// SPDX-License-Identifier: Apache-2.0
//
// Memory of any size. Who frees says size and alignment again, so a request's class is computed twice and stored
// nowhere: an object needs no header, and a span is found by its address and length alone.
//
// A class gets its cache from the first who needs it. Several may at once; each makes one, without a lock, since making
// one may run users' reclaimers, and the first to publish wins: the others give theirs up and use that.
//
// Law (audit), besides those of the caches: the spans out are whole pages, and none has none.
#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include <larder/memory_resource.h>

#include "base/check.h"
#include "base/registry.h"
#include "budget/account.h"
#include "cache/span.h"
#include "os/memory.h"
#include "os/parker.h"

namespace larder {
namespace {

// A span this large, or aligned so, is none: addresses have 47 bits.
constexpr std::size_t span_max = std::size_t{1} << 46;
// How often a request that does not wait asks the reclaimers: others may be quicker to take what they gave (KF-53), but
// where the system has no memory, no reclaim will help.
constexpr int reclaims_max = 3;

// More than a cache takes for itself: where there is that much room and still no cache can be made, it is not the
// budget that lacks, and to wait for it would never end. Today nothing else makes creation fail.
constexpr bytes own_room_max{std::size_t{1} << 20};

bool runs_a_reclaimer() { return os::parker::current().reclaiming; }

bytes span_length(std::size_t size) { return round_up_to_pages(bytes{std::max<std::size_t>(size, 1)}); }

}  // namespace

struct memory_resource::state final : budget::describer {
  state(std::string_view chosen_name, memory_budget& charged) : name(chosen_name), budget(charged) {
    budget::add_describer(*this, budget);
  }
  ~state() override { budget::remove_describer(*this); }
  // The caches speak for themselves.
  void describe(memory_account& into) const override {
    into.live_objects += bytes{span_bytes_out.load(std::memory_order_relaxed)};
  }

  const std::string name;
  memory_budget& budget;
  // Counts only, which publish nothing: relaxed.
  std::atomic<std::uint64_t> spans_out{0};
  std::atomic<std::uint64_t> span_bytes_out{0};
  // From when the resource is whole until it begins to end.
  std::optional<base::registration> registered;
};

memory_resource::memory_resource(std::string_view name) : memory_resource(name, options{}) {}

memory_resource::memory_resource(std::string_view name, const options& chosen)
    : waits_(chosen.wait_for_memory),
      state_(std::make_unique<state>(name, chosen.budget == nullptr ? memory_budget::process() : *chosen.budget)) {
  state_->registered.emplace([this, component = "memory_resource/" + state_->name](const base::stat_visitor& show) {
    const statistics now = stats();
    show({component, "caches", now.caches});
    show({component, "objects_out", now.objects_out});
    show({component, "objects_free", now.objects_free});
    show({component, "gets", now.gets});
    show({component, "puts", now.puts});
    show({component, "spans_out", now.spans_out});
    show({component, "bytes_out", now.bytes_out.count});
    show({component, "charged_bytes", now.charged.count});
  });
}

memory_resource::~memory_resource() {
  state_->registered.reset();
  const statistics now = stats();
  LARDER_CHECK(now.objects_out == 0 && now.spans_out == 0,
               "memory resource \"%s\" destroyed while %llu objects and %llu spans are out (%llu bytes)",
               name().c_str(), static_cast<unsigned long long>(now.objects_out),
               static_cast<unsigned long long>(now.spans_out), static_cast<unsigned long long>(now.bytes_out.count));
  for (std::atomic<raw_cache*>& cache : caches_) delete cache.exchange(nullptr);
}

memory_resource& memory_resource::process() noexcept {
  // NOLINTNEXTLINE(bugprone-unhandled-exception-at-new): without these few hundred bytes the process ends
  static auto* const instance = new memory_resource("process");
  return *instance;
}

// -- objects

void* memory_resource::take_below(std::size_t number) {
  raw_cache& cache = cache_or_make(number);
  if (waits_) {
    const result<void*> object = cache.get();
    if (!object) throw std::bad_alloc();
    return *object;
  }
  if (void* object = cache.try_get()) return object;
  if (runs_a_reclaimer()) throw std::bad_alloc();
  const bytes slab = cache.stats().slab_bytes;
  for (int reclaims = 0; reclaims < reclaims_max && cache::charge_now(budget(), slab); ++reclaims) {
    budget().release(slab);
    if (void* object = cache.try_get()) return object;
  }
  throw std::bad_alloc();
}

raw_cache& memory_resource::cache_or_make(std::size_t number) {
  // What a cache takes for itself is its own business, so who waits for that waits for a little more each time.
  for (bytes room{page_size}; room < own_room_max; room += bytes{page_size}) {
    // Acquire: as in `take`.
    if (raw_cache* cache = caches_[number].load(std::memory_order_acquire)) return *cache;
    if (runs_a_reclaimer()) throw std::bad_alloc();
    if (raw_cache* cache = make_cache(number)) return *cache;
    if (!waits_ || !budget().charge(room)) break;
    budget().release(room);
  }
  throw std::bad_alloc();
}

// Null if there is no room.
raw_cache* memory_resource::make_cache(std::size_t number) {
  raw_cache::options chosen;
  chosen.size = size_classes::size_of(number);
  chosen.alignment = size_classes::alignment_of(number);
  chosen.budget = &budget();
  result<std::unique_ptr<raw_cache>> made = raw_cache::create(name() + '/' + std::to_string(chosen.size), chosen);
  raw_cache* first = nullptr;
  if (!made) return caches_[number].load(std::memory_order_acquire);
  // Release: whoever loads the pointer sees the cache whole. Acquire where another was first: so do we see that.
  if (caches_[number].compare_exchange_strong(first, made->get(), std::memory_order_release,
                                              std::memory_order_acquire)) {
    return made->release();
  }
  return first;
}

void memory_resource::die_of_foreign(const void* object) const {
  LARDER_CHECK(false, "memory resource \"%s\": %p comes back for a size never given", name().c_str(), object);
  __builtin_unreachable();
}

// -- spans

void* memory_resource::map_span(std::size_t size, std::size_t alignment) {
  if (size > span_max || alignment > span_max) throw std::bad_alloc();
  const bytes length = span_length(size);
  const auto admitted = [&] {
    if (waits_) return static_cast<bool>(budget().charge(length));
    return runs_a_reclaimer() ? budget().try_charge(length) : cache::charge_now(budget(), length);
  };
  if (!admitted()) throw std::bad_alloc();
  const result<void*> mapped = os::map(length, std::max(alignment, page_size));
  if (!mapped) {
    budget().release(length);
    throw std::bad_alloc();
  }
  state_->spans_out.fetch_add(1, std::memory_order_relaxed);
  state_->span_bytes_out.fetch_add(length.count, std::memory_order_relaxed);
  return *mapped;
}

void memory_resource::unmap_span(void* memory, std::size_t size) {
  const bytes length = span_length(size);
  const std::uint64_t before = state_->span_bytes_out.fetch_sub(length.count, std::memory_order_relaxed);
  LARDER_CHECK(before >= length.count, "memory resource \"%s\": %p of %zu bytes comes back, but only %llu are out",
               name().c_str(), memory, size, static_cast<unsigned long long>(before));
  state_->spans_out.fetch_sub(1, std::memory_order_relaxed);
  os::unmap(memory, length);
  budget().release(length);
}

// -- both

void* memory_resource::take_bytes(std::size_t size, std::size_t alignment) {
  if (!std::has_single_bit(alignment)) throw std::bad_alloc();
  const std::size_t number = size_classes::number_for(size, alignment);
  return number < size_classes::count ? take(number) : map_span(size, alignment);
}

void memory_resource::give_bytes(void* memory, std::size_t size, std::size_t alignment) {
  const std::size_t number = size_classes::number_for(size, alignment);
  if (number < size_classes::count) return give(number, memory);
  unmap_span(memory, size);
}

void* memory_resource::do_allocate(std::size_t size, std::size_t alignment) { return take_bytes(size, alignment); }

void memory_resource::do_deallocate(void* memory, std::size_t size, std::size_t alignment) {
  give_bytes(memory, size, alignment);
}

bool memory_resource::do_is_equal(const std::pmr::memory_resource& other) const noexcept { return this == &other; }

// -- the whole

bytes memory_resource::trim(bytes wanted) {
  bytes released;
  for (std::size_t number = size_classes::count; number-- > 0 && released < wanted;) {
    raw_cache* cache = caches_[number].load(std::memory_order_acquire);
    if (cache != nullptr) released += cache->trim(wanted - released);
  }
  return released;
}

memory_resource::statistics memory_resource::stats() const {
  statistics sum;
  for (std::size_t number = 0; number < size_classes::count; ++number) {
    const raw_cache* cache = caches_[number].load(std::memory_order_acquire);
    if (cache == nullptr) continue;
    const raw_cache::statistics now = cache->stats();
    ++sum.caches;
    sum.objects_out += now.objects_out;
    sum.objects_free += now.objects_built - now.objects_out;
    sum.gets += now.gets;
    sum.puts += now.puts;
    sum.bytes_out += bytes{size_classes::size_of(number)} * now.objects_out;
    sum.charged += now.charged;
  }
  const bytes of_spans{state_->span_bytes_out.load(std::memory_order_relaxed)};
  sum.spans_out = state_->spans_out.load(std::memory_order_relaxed);
  sum.bytes_out += of_spans;
  sum.charged += of_spans;
  return sum;
}

const raw_cache* memory_resource::cache_for(std::size_t size, std::size_t alignment) const {
  return const_cast<memory_resource*>(this)->cache_for(size, alignment);
}

raw_cache* memory_resource::cache_for(std::size_t size, std::size_t alignment) {
  const std::size_t number = size_classes::number_for(size, alignment);
  return number < size_classes::count ? caches_[number].load(std::memory_order_acquire) : nullptr;
}

void memory_resource::audit() const {
  for (const std::atomic<raw_cache*>& cache : caches_) {
    if (const raw_cache* made = cache.load(std::memory_order_acquire)) made->audit();
  }
  const std::uint64_t spans = state_->spans_out.load(std::memory_order_relaxed);
  const std::uint64_t length = state_->span_bytes_out.load(std::memory_order_relaxed);
  LARDER_CHECK(length % page_size == 0 && length / page_size >= spans && (spans != 0 || length == 0),
               "memory resource \"%s\": %llu spans of %llu bytes", name().c_str(),
               static_cast<unsigned long long>(spans), static_cast<unsigned long long>(length));
}

const std::string& memory_resource::name() const { return state_->name; }
memory_budget& memory_resource::budget() const { return state_->budget; }

}  // namespace larder

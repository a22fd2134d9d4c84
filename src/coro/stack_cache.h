// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <string_view>

#include <larder/raw_cache.h>

#include "coro/guard_reclaimer.h"

namespace larder::coro {

// Stacks that stay built: a guard page, the stack above it, and at its upper end a Record (a fiber and what its owner
// keeps with it), all one object of a raw_cache. So a stack with its guard and its record costs a get and a put, and
// what it costs to make is paid once (the Akaros VMM keeps its task threads so).
//
//   object: | guard, one page | stack …grows down… | Record |
//                             ^ scratch                ^ its page
//
// The guard is never resident and is not charged. A Record is constructed with the lowest address of its stack. Behind
// it stands how its guard was made.
template <typename Record>
class stack_cache final : guard_reclaimer {
 public:
  struct options {
    bytes stack_size;  // rounded up to whole pages, the smallest at least
    std::size_t reservation = 0;
    std::size_t limit = raw_cache::no_limit;
    memory_budget* budget = nullptr;
  };
  static constexpr bytes smallest{16U << 10};

  static result<std::unique_ptr<stack_cache>> create(std::string_view name, options chosen) {
    show_stack_guards();
    const bytes stack = round_up_to_pages(std::max(chosen.stack_size, smallest));
    std::unique_ptr<stack_cache> made(new stack_cache(stack));
    auto cache = raw_cache::create(name, {.size = object_size(stack),
                                          .alignment = page_size,
                                          .reservation = chosen.reservation,
                                          .limit = chosen.limit,
                                          .budget = chosen.budget,
                                          .construct = construct,
                                          .destroy = destroy,
                                          .context = made.get(),
                                          .uncharged_per_object = {page_size},
                                          .used_size = used_size,
                                          .scratch = {page_size, stack.count - page_size}});
    if (!cache) return cache.error();
    made->cache_ = std::move(*cache);
    guard_reclaimers::of_process().add(*made);
    return made;
  }
  ~stack_cache() override {
    if (cache_ != nullptr) guard_reclaimers::of_process().remove(*this);
  }
  stack_cache(const stack_cache&) = delete;
  stack_cache& operator=(const stack_cache&) = delete;

  // Null if there is none in time, or no guard for it.
  Record* get(time_point deadline) {
    const auto object = cache_->get(deadline);
    return object ? record_of(*object) : nullptr;
  }
  Record* try_get() {
    void* object = cache_->try_get();
    return object == nullptr ? nullptr : record_of(object);
  }
  void put(Record* record) { cache_->put(object_of(record)); }

  bytes stack_size() const { return stack_size_; }
  // The most that any of the stacks has used, to the page, record included, as far as that was seen
  // (raw_cache::measure_scratch).
  bytes high_water() const { return cache_->measure_scratch() + bytes{page_size}; }
  // The same without a look at any stack now.
  bytes high_water_seen() const { return cache_->stats().scratch_used_most + bytes{page_size}; }
  raw_cache& cache() { return *cache_; }

 private:
  explicit stack_cache(bytes stack) : stack_size_(stack) {}

  static std::size_t object_size(bytes stack) { return page_size + stack.count; }
  // As a rule the record and some frames: the page that an idle stack keeps resident.
  static constexpr std::size_t used_size = page_size;
  struct upper_end {
    explicit upper_end(std::byte* stack_low, os::guard_kind made) : record(stack_low), guard(made) {}
    Record record;
    const os::guard_kind guard;
  };
  static_assert(sizeof(upper_end) <= page_size, "the record's page stays, the others are scratch");
  static constexpr std::size_t record_size = round_up(sizeof(upper_end), 64);

  upper_end* upper_end_of(void* object) const {
    return reinterpret_cast<upper_end*>(static_cast<std::byte*>(object) + object_size(stack_size_) - record_size);
  }
  Record* record_of(void* object) const { return &upper_end_of(object)->record; }
  void* object_of(Record* record) const {
    return reinterpret_cast<std::byte*>(record) + record_size - object_size(stack_size_);
  }

  static result<void> construct(void* object, void* owner) {
    const auto& self = *static_cast<stack_cache*>(owner);
    const auto guarded = install_stack_guard(object);
    if (!guarded) return guarded.error();
    new (self.upper_end_of(object)) upper_end(static_cast<std::byte*>(object) + page_size, *guarded);
    return {};
  }
  static void destroy(void* object, void* owner) {
    upper_end* gone = static_cast<stack_cache*>(owner)->upper_end_of(object);
    const os::guard_kind guard = gone->guard;
    gone->~upper_end();
    os::remove_guard(object, {page_size}, guard);
  }

  bool give_up_some() override { return cache_->trim(cache_->stats().slab_bytes) > bytes{0}; }

  const bytes stack_size_;
  std::unique_ptr<raw_cache> cache_;
};

}  // namespace larder::coro

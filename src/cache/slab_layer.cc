// SPDX-License-Identifier: Apache-2.0
//
// Slabs in groups by the number of free objects; a word of bits finds the fullest group with room in one instruction.
// Objects are taken from the fullest slab, so that the others can become empty: the fewer slabs are in use, the less
// memory is held and the fewer constructors run. Up to 64 objects a slab, each number of free objects is its own group
// and the order is exact; above, a group spans a 64th of the slab, and slabs that differ by less count as equally full.
// In the other orders (slab_order) there is one group, of all slabs that are neither full nor empty.
//
// Laws, where the sums are over all slabs s of the layer (audit):
//
//   built = Σ s.built_count             spare = Σ s.spare_count            handed_out = built − spare
//   reservation ≤ built                 built + building ≤ limit
//   s in full_   ⇔ s.free_count = 0     s in empty_ ⇔ s.free_count = capacity
//   s in partial_[i] ⇔ 0 < s.free_count < capacity ∧ i = (s.free_count − 1) / width
//   s in with_spare_ or cold_ ⇔ s.spare_count > 0     s in cold_ ⇔ s.spare_count > 0 ∧ s.changed = found_cold
//
// A slab is cold if for a whole period no object came to it nor went. With finds_cold, with_spare_ is in the order of
// last use, so its back is cold if any is. A stamp of 16 bits says when; where it comes round after 65,535 periods, a
// slab is taken for one that was used lately, and found a period or two later.
#include "cache/slab_layer.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace larder::cache {

slab_layer::slab_layer(const slab_geometry& geometry, const std::string& cache_name, std::size_t limit,
                       std::size_t reservation, slab_order order, bool finds_cold)
    : geometry_(geometry),
      cache_name_(cache_name),
      limit_(limit),
      reservation_(reservation),
      order_(order),
      finds_cold_(finds_cold),
      group_width_(order == slab_order::fullest_first ? (geometry.capacity + partial_groups - 1) / partial_groups
                                                      : geometry.capacity) {}

slab* slab_layer::fullest_with_room() const {
  if (partial_mask_ != 0) return partial_[static_cast<std::size_t>(std::countr_zero(partial_mask_))].front();
  return empty_.front();
}

void slab_layer::link(slab& of, std::size_t free_count) {
  if (free_count == 0) {
    full_.push_front(of);
  } else if (free_count == geometry_.capacity) {
    empty_.push_front(of);
    ++empty_slabs_;
  } else {
    const std::size_t number = group_number(free_count);
    partial_[number].push_front(of);
    partial_mask_ |= bit_of(number);
    ++partial_slabs_;
  }
}

void slab_layer::unlink(slab& of, std::size_t free_count) {
  group::remove(of);
  if (free_count == 0) return;
  if (free_count == geometry_.capacity) {
    --empty_slabs_;
    empty_low_water_ = std::min(empty_low_water_, empty_slabs_);
    return;
  }
  const std::size_t number = group_number(free_count);
  if (partial_[number].empty()) partial_mask_ &= ~bit_of(number);
  --partial_slabs_;
}

void slab_layer::regroup(slab& changed, std::size_t free_before, std::size_t spare_before) {
  const std::size_t free_now = changed.free_count();
  const auto place = [this](std::size_t free_count) {
    if (free_count == 0) return partial_groups;
    if (free_count == geometry_.capacity) return partial_groups + 1;
    return group_number(free_count);
  };
  const bool to_front = order_ == slab_order::latest_first && free_now > free_before;
  if (place(free_before) != place(free_now) || to_front) {
    unlink(changed, free_before);
    link(changed, free_now);
  }
  const std::size_t spare_now = changed.spare_count();
  if (spare_before > 0 && spare_now == 0) spare_list::remove(changed);
  if (spare_before == 0 && spare_now > 0) with_spare_.push_front(changed);
  if (!finds_cold_ || spare_now == 0) return;
  // What is left of a slab that was found cold is as it was; what comes back to it is not.
  if (spare_before > 0 && (changed.changed() != found_cold || free_now > free_before)) {
    spare_list::remove(changed);
    with_spare_.push_front(changed);
  } else if (spare_before > 0) {
    return;
  }
  changed.note_changed(period_);
}

void slab_layer::begin_period() {
  empty_low_water_ = empty_slabs_;
  last_period_ = period_;
  period_ = period_after(period_);
}

slab* slab_layer::find_cold(bool any) {
  slab* longest = with_spare_.back();
  if (!finds_cold_ || longest == nullptr) return nullptr;
  if (!any && (longest->changed() == period_ || longest->changed() == last_period_)) return nullptr;
  spare_list::remove(*longest);
  cold_.push_front(*longest);
  longest->note_changed(found_cold);
  return longest;
}

slab_layer::taken slab_layer::take() {
  slab* fullest = fullest_with_room();
  if (fullest == nullptr) return {nullptr, false, built_ >= limit_};
  if (fullest->spare_count() > 0) return {take_spare_of(*fullest), true, false};
  if (built_ < limit_) {
    const std::size_t free_before = fullest->free_count();
    void* object = fullest->take_unbuilt();
    ++built_;
    regroup(*fullest, free_before, 0);
    return {object, false, false};
  }
  void* object = take_spare();
  return {object, object != nullptr, object == nullptr};
}

void* slab_layer::take_spare() {
  slab* from = with_spare_.empty() ? cold_.front() : with_spare_.front();
  if (from == nullptr) return nullptr;
  slab* fullest = fullest_with_room();
  if (fullest->spare_count() > 0) from = fullest;
  return take_spare_of(*from);
}

void* slab_layer::take_spare_of(slab& from) {
  const std::size_t free_before = from.free_count();
  const std::size_t spare_before = from.spare_count();
  void* object = from.take_spare();
  --spare_;
  regroup(from, free_before, spare_before);
  return object;
}

std::size_t slab_layer::take_batch(void** objects, std::size_t count) {
  std::size_t got = 0;
  while (got < count && partial_mask_ != 0) {
    slab& fullest = *fullest_with_room();
    const std::size_t free_before = fullest.free_count();
    const std::size_t spare_before = fullest.spare_count();
    if (spare_before == 0) break;
    while (got < count && fullest.spare_count() > 0) {
      objects[got++] = fullest.take_spare();
      --spare_;
    }
    regroup(fullest, free_before, spare_before);
  }
  return got;
}

slab& slab_layer::slab_of(const void* object, const char* doing) const {
  const auto address = reinterpret_cast<std::uintptr_t>(object);
  // First the bounds, so that the mark is read only where slabs are.
  const bool within =
      address >= lowest_.load(base::memory_order_relaxed) && address < highest_.load(base::memory_order_relaxed);
  auto* found = reinterpret_cast<slab*>(address & ~(geometry_.shape.alignment - 1));
  LARDER_CHECK(within && found->is_of(geometry_), "cache \"%s\": %s of %p, which is no object of this cache",
               cache_name_.c_str(), doing, object);
  LARDER_CHECK(found->index_of(object) < geometry_.capacity,
               "cache \"%s\": %s of %p, which is not the start of an object", cache_name_.c_str(), doing, object);
  return *found;
}

void slab_layer::put(void* object) {
  slab& owner = slab_of(object, "put");
  const std::size_t index = owner.index_of(object);
  LARDER_CHECK(!owner.is_free(index), "cache \"%s\": put of %p, which is free already (put twice?)",
               cache_name_.c_str(), object);
  const std::size_t free_before = owner.free_count();
  const std::size_t spare_before = owner.spare_count();
  owner.give(index, true);
  ++spare_;
  regroup(owner, free_before, spare_before);
}

void slab_layer::put_unbuilt(void* object) {
  slab& owner = slab_of(object, "put");
  const std::size_t free_before = owner.free_count();
  const std::size_t spare_before = owner.spare_count();
  owner.give(owner.index_of(object), false);
  --built_;
  regroup(owner, free_before, spare_before);
}

void slab_layer::insert(slab& added) {
  const auto start = reinterpret_cast<std::uintptr_t>(&added);
  const std::uintptr_t end = start + geometry_.shape.length.count;
  if (start < lowest_.load(base::memory_order_relaxed)) lowest_.store(start, base::memory_order_relaxed);
  if (end > highest_.load(base::memory_order_relaxed)) highest_.store(end, base::memory_order_relaxed);
  ++slabs_;
  spare_ += added.spare_count();
  link(added, added.free_count());
  added.note_changed(period_);
  if (added.spare_count() > 0) with_spare_.push_front(added);
}

std::size_t slab_layer::begin_building(std::size_t most) {
  const std::size_t announced = std::min(most, limit_ - built_);
  built_ += announced;
  building_ += announced;
  return announced;
}

void slab_layer::end_building(std::size_t announced, std::size_t built) {
  building_ -= announced;
  built_ -= announced - built;
}

slab* slab_layer::surplus() const {
  // From the back: what has been empty for longest goes first.
  slab* found = empty_.back();
  while (found != nullptr && built() - found->built_count() < reservation_) found = empty_.before(*found);
  return found;
}

bool slab_layer::has_surplus() const { return surplus() != nullptr; }

slab* slab_layer::remove_surplus() {
  slab* found = surplus();
  return found == nullptr ? nullptr : remove(*found);
}

slab* slab_layer::remove_any() {
  for (const group* each : {&empty_, &full_}) {
    if (!each->empty()) return remove(*each->back());
  }
  if (partial_mask_ == 0) return nullptr;
  return remove(*partial_[static_cast<std::size_t>(std::countr_zero(partial_mask_))].front());
}

slab* slab_layer::remove(slab& removed) {
  unlink(removed, removed.free_count());
  if (removed.spare_count() > 0) spare_list::remove(removed);
  --slabs_;
  built_ -= removed.built_count();
  spare_ -= removed.spare_count();
  return &removed;
}

void slab_layer::audit_group(const group& members, std::size_t free_min, std::size_t free_max, std::size_t& slabs,
                             std::size_t& built, std::size_t& spare) const {
  for (const slab* at = members.front(); at != nullptr; at = members.after(*const_cast<slab*>(at))) {
    at->audit(cache_name_.c_str());
    LARDER_CHECK(at->is_of(geometry_), "cache \"%s\": a slab of another cache is in its lists", cache_name_.c_str());
    LARDER_CHECK(at->free_count() >= free_min && at->free_count() <= free_max,
                 "cache \"%s\": a slab with %zu free objects is in the group for %zu to %zu", cache_name_.c_str(),
                 at->free_count(), free_min, free_max);
    const base::list_link<spare_tag>& spare_link = *at;
    LARDER_CHECK(spare_link.linked() == (at->spare_count() > 0),
                 "cache \"%s\": a slab with %zu spare objects is wrongly %s the list of those", cache_name_.c_str(),
                 at->spare_count(), spare_link.linked() ? "in" : "not in");
    ++slabs;
    built += at->built_count();
    spare += at->spare_count();
  }
}

void slab_layer::audit() const {
  const char* name = cache_name_.c_str();
  std::size_t slabs = 0;
  std::size_t built = 0;
  std::size_t spare = 0;
  audit_group(full_, 0, 0, slabs, built, spare);
  LARDER_CHECK(slabs == full_slabs(), "cache \"%s\": %zu full slabs counted, %zu listed", name, full_slabs(), slabs);
  const std::size_t full = slabs;
  for (std::size_t number = 0; number < partial_groups; ++number) {
    const std::size_t free_max = std::min((number + 1) * group_width_, geometry_.capacity - 1);
    audit_group(partial_[number], number * group_width_ + 1, free_max, slabs, built, spare);
    LARDER_CHECK(partial_[number].empty() == ((partial_mask_ & bit_of(number)) == 0),
                 "cache \"%s\": the bit of group %zu is wrong", name, number);
  }
  LARDER_CHECK(slabs - full == partial_slabs_, "cache \"%s\": %zu partial slabs counted, %zu listed", name,
               partial_slabs_, slabs - full);
  audit_group(empty_, geometry_.capacity, geometry_.capacity, slabs, built, spare);
  std::size_t with_spare = 0;
  for (const spare_list* list : {&with_spare_, &cold_}) {
    for (slab* at = list->front(); at != nullptr; at = list->after(*at)) {
      LARDER_CHECK((at->changed() == found_cold) == (list == &cold_),
                   "cache \"%s\": slab %p is wrongly %s the cold ones", name, static_cast<void*>(at),
                   list == &cold_ ? "among" : "not among");
      with_spare += at->spare_count();
    }
  }
  LARDER_CHECK(with_spare == spare_, "cache \"%s\": %zu spare objects counted, %zu in slabs that are listed for them",
               name, spare_, with_spare);
  LARDER_CHECK(slabs == slabs_, "cache \"%s\": %zu slabs counted, %zu listed", name, slabs_, slabs);
  LARDER_CHECK(built == this->built(), "cache \"%s\": %zu built objects counted, %zu marked", name, this->built(),
               built);
  LARDER_CHECK(spare == spare_, "cache \"%s\": %zu spare objects counted, %zu marked", name, spare_, spare);
  LARDER_CHECK(reservation_ <= this->built() && built_ <= limit_,
               "cache \"%s\": %zu objects built and %zu being built, not from %zu to %zu", name, this->built(),
               building_, reservation_, limit_);
}

}  // namespace larder::cache

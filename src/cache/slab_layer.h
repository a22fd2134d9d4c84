// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "cache/slab.h"

namespace larder::cache {

// Which of the slabs with room is the next to give. The others are what the order by occupancy is measured against:
// with `latest_first`, the slab to which an object came back last, as from one free list of all objects; with
// `last_full_first`, the slab that was full until last, as in the list of Bonwick's first allocator.
enum class slab_order { fullest_first, latest_first, last_full_first };

// A cache's slabs, grouped by how full they are, and the counts that limit them. Not a lock nor a system call in here:
// the owner guards every call with its mutex, and maps and unmaps.
class slab_layer {
 public:
  // With `finds_cold`, it knows which slabs nobody has used lately.
  slab_layer(const slab_geometry& geometry, const std::string& cache_name, std::size_t limit, std::size_t reservation,
             slab_order order = slab_order::fullest_first, bool finds_cold = false);
  slab_layer(const slab_layer&) = delete;
  slab_layer& operator=(const slab_layer&) = delete;

  struct taken {
    void* object = nullptr;
    bool built = false;     // else the taker constructs it, or gives it back by put_unbuilt
    bool at_limit = false;  // no object, and another slab would not help
  };
  // An object of the fullest slab with room; at the limit, a built one of any slab.
  taken take();
  // A built object of any slab, or null.
  void* take_spare();
  // Up to `count` built objects of the fullest slabs with room. Opens no empty slab: that is for whoever needs one.
  std::size_t take_batch(void** objects, std::size_t count);

  // A built object comes back. Dies on misuse: no object of this cache, or free already.
  void put(void* object);
  // One that `take` gave to be built, and was not.
  void put_unbuilt(void* object);

  // Adds a slab whose objects are all free. What is built of them was announced by begin_building.
  void insert(slab& added);

  // For who builds objects in a slab before it is inserted: room for up to `most` of them under the limit, which is the
  // caller's until it says how many there are. Returns how many.
  std::size_t begin_building(std::size_t most);
  void end_building(std::size_t announced, std::size_t built);
  // So many stay built from now on, which are built already.
  void promise(std::size_t reservation) { reservation_ = reservation; }
  // In a forked child: whoever was building stayed with the parent.
  void forget_building() { end_building(building_, 0); }
  // Unlinks an empty slab without which the reservation is still built, and which is the caller's from now on; or null.
  // Of two callers at once, one gets it (KF-6).
  slab* remove_surplus();
  bool has_surplus() const;
  // A slab, empty or not: for the end.
  slab* remove_any();

  // Empty slabs that nobody needed since the last `begin_period`.
  std::size_t surplus_empty() const { return empty_low_water_; }
  void begin_period();

  // The slab with free built objects that was not used for longest, if that was a whole period (`any`: however long);
  // null if there is none, or finds_cold was not asked for. It is found once, until an object comes back to it.
  slab* find_cold(bool any);
  // Whether find_cold will find one, now or later.
  bool has_cold() const { return finds_cold_ && !with_spare_.empty(); }

  // Calls `look(slab&)` for `slabs_max` slabs, or all.
  template <typename Look>
  void look_at_some(std::size_t slabs_max, Look&& look) const {
    const auto look_at = [&](const group& members) {
      for (slab* at = members.front(); at != nullptr && slabs_max > 0; at = members.after(*at), --slabs_max) look(*at);
    };
    look_at(full_);
    for (const group& each : partial_) look_at(each);
    look_at(empty_);
  }

  // Dies if the object cannot be one of this cache's. Needs no lock, but the caller must own the object.
  slab& slab_of(const void* object, const char* doing) const;

  // built = handed_out + spare
  std::size_t built() const { return built_ - building_; }
  std::size_t handed_out() const { return built() - spare_; }
  std::size_t full_slabs() const { return slabs_ - partial_slabs_ - empty_slabs_; }
  std::size_t partial_slabs() const { return partial_slabs_; }
  std::size_t empty_slabs() const { return empty_slabs_; }
  std::size_t slabs() const { return slabs_; }

  void audit() const;

 private:
  using group = base::intrusive_list<slab, group_tag>;
  // 64, so that one word says which groups have members.
  static constexpr std::size_t partial_groups = 64;

  std::size_t group_number(std::size_t free_count) const { return (free_count - 1) / group_width_; }
  // Of partial_mask_. The remainder is what a shift takes anyway.
  static std::uint64_t bit_of(std::size_t number) { return std::uint64_t{1} << (number % partial_groups); }
  using spare_list = base::intrusive_list<slab, spare_tag>;
  // What `changed` says of a slab that find_cold has found; periods are counted from 1.
  static constexpr std::uint16_t found_cold = 0;
  static std::uint16_t period_after(std::uint16_t period) {
    return period == UINT16_MAX ? std::uint16_t{1} : static_cast<std::uint16_t>(period + 1);
  }

  slab* fullest_with_room() const;
  void* take_spare_of(slab& from);
  void link(slab& of, std::size_t free_count);
  void unlink(slab& of, std::size_t free_count);
  // After a change of the slab's counts: moves it to the group where it belongs now.
  void regroup(slab& changed, std::size_t free_before, std::size_t spare_before);
  slab* surplus() const;
  slab* remove(slab& removed);
  void audit_group(const group& members, std::size_t free_min, std::size_t free_max, std::size_t& slabs,
                   std::size_t& built, std::size_t& spare) const;

  const slab_geometry& geometry_;
  const std::string& cache_name_;
  const std::size_t limit_;
  std::size_t reservation_;
  const slab_order order_;
  const bool finds_cold_;
  const std::size_t group_width_;

  group full_;
  std::array<group, partial_groups> partial_;  // partial_[i]: from i · width + 1 to (i + 1) · width objects free
  std::uint64_t partial_mask_ = 0;             // bit i ⇔ partial_[i] has members
  group empty_;                                // the one that became empty last in front
  spare_list with_spare_;                      // with finds_cold the one that was used last in front
  spare_list cold_;                            // those with spare objects that find_cold has found
  std::uint16_t period_ = 1;
  std::uint16_t last_period_ = 1;
  std::size_t slabs_ = 0;
  std::size_t partial_slabs_ = 0;
  std::size_t empty_slabs_ = 0;
  std::size_t empty_low_water_ = 0;  // the least `empty_slabs_` was in this period
  std::size_t built_ = 0;            // with those that are being built before their slab is inserted
  std::size_t building_ = 0;         // these
  std::size_t spare_ = 0;

  // Every slab lies within. Atomic because slab_of reads it without the lock; relaxed because the object that its
  // caller holds came to it after its slab was inserted.
  base::atomic<std::uintptr_t> lowest_{UINTPTR_MAX};
  base::atomic<std::uintptr_t> highest_{0};
};

}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/units.h>

namespace larder {

// Names an entry of a handle_table in 32 bits, safe to give to others: a number that was made up, or whose entry is
// gone, finds nothing. 0 is "none".
struct handle {
  std::uint32_t value = 0;

  explicit constexpr operator bool() const { return value != 0; }
  friend constexpr auto operator<=>(handle, handle) = default;
};

// The untyped core of handle_table<T>, which says the same in types.
//
// A handle is an index and a generation. The bits are split at creation: as many for the index as the limit needs, the
// rest (at least 8) for the generation, which changes whenever the entry is used again, so that a stale handle does not
// find the entry's next user: the same handle comes again when its entry has been used for all generations, or for half
// of them if `shrink` gave its frame back meanwhile. Each table counts from another generation, so that a handle of one
// is not likely to be one of another.
//
// Entries stand in frames of a page each, charged to the budget when first needed, and given back by `shrink`, which
// the budget calls too. The free ones are listed for each CPU: insert, and erase on the CPU that inserted, take no lock
// and make no atomic read-modify-write where the kernel has restartable sequences (see active_mode).
//
// After the Xen hypervisor's grant-table tracking (a table of 32-bit handles that grows by pages, with a free list for
// each virtual CPU), whose list two could pop from at once (CVE-2017-12136).
class LARDER_API raw_handle_table {
 public:
  // Leaves 8 bits for the generation.
  static constexpr std::size_t limit_max = std::size_t{1} << 24;
  // One entry can be pinned that often at a time; more die.
  static constexpr std::size_t pins_max = (std::size_t{1} << 18) - 1;

  struct options {
    // The most entries, exactly; 1 to limit_max.
    std::size_t limit = 1 << 16;
    // Entries whose frames are there from the start and stay, so that inserting that many cannot fail.
    std::size_t reservation = 0;
    // What frames are charged to; outlives the table. Null: memory_budget::process().
    memory_budget* budget = nullptr;
    // Called once for each erased object when nobody has it pinned any more: by `erase` itself, or by the last unpin.
    // No lock is held. Not called for what `take` returned.
    void (*released)(void* context, void* object) = nullptr;
    void* context = nullptr;
  };

  struct statistics {
    std::uint64_t entries = 0;  // used now, those included that are erased but still pinned
    std::uint64_t limit = 0;
    std::uint64_t frames = 0;
    std::uint64_t inserts = 0;
    std::uint64_t erases = 0;
    std::uint64_t insert_failures = 0;
    std::uint64_t stale = 0;   // calls with a handle whose entry is used by another, or by none
    std::uint64_t forged = 0;  // calls with a handle that this table cannot have made
    std::uint64_t steals = 0;  // a CPU took a share of another's free entries
    std::uint64_t shared = 0;  // a CPU's entries began to be erased or pinned elsewhere, which costs a fence
    bytes charged;             // for frames and what the table needs besides
  };

  // Takes the frames of the reservation, 16 bytes for each frame that the limit may need, and up to 2240 for each CPU;
  // reserves addresses for up to twice the limit. May reclaim, does not wait. Throws std::bad_alloc if the budget or
  // the system has not the memory. Dies if the limit is out of range.
  raw_handle_table(std::string_view name, options chosen);
  // The table owns no object: entries still used are forgotten. Costs one call to the system, however large the limit,
  // whose work is in proportion to the frames that were used (KF-27).
  ~raw_handle_table();
  raw_handle_table(const raw_handle_table&) = delete;
  raw_handle_table& operator=(const raw_handle_table&) = delete;

  // Any thread or task may call these at any time; none but `take` waits. A handle that is stale, made up or of another
  // table finds nothing (unless it happens to be equal), and is counted. `object` is not null.

  // None at the limit, or when a new frame is needed and the budget or the system refuses it; the free entries of every
  // CPU have been considered then, and the budget's reclaimers asked.
  [[nodiscard]] handle insert(void* object);
  // The object or null. Wait-free. That others do not erase the entry meanwhile is the caller's care.
  void* find(handle which) const;
  // Erases the entry: from now on the handle finds nothing. Of two at once, one returns true. If it is pinned, the
  // entry itself is free, and the object released, after the last unpin.
  bool erase(handle which);
  // Erases the entry and returns its object, which is the caller's now; null if there is none. If it is pinned, parks
  // the task or thread until the last unpin: a caller that pins it itself waits for ever.
  void* take(handle which);
  // The object or null. It is not released, nor returned by `take`, before `unpin` of the same handle.
  [[nodiscard]] void* pin(handle which);
  // Dies if the entry is not pinned.
  void unpin(handle which);
  // Calls `see` for each entry; entries inserted or erased meanwhile may or may not be seen. No lock is held: `see` may
  // use the table, and pins the handle if others may erase it. Costs in proportion to the frames.
  void for_each(const std::function<void(handle, void*)>& see) const;

  // Gives the frames that hold no entry back to the system, but those of the reservation; returns how many. Others who
  // insert or erase wait meanwhile, `find` does not; costs in proportion to the free entries. A frame whose entries'
  // generations lie more than half of all apart is kept.
  std::size_t shrink();

  std::size_t size() const;
  std::size_t limit() const;
  statistics stats() const;
  // How free entries are listed: "rseq-cid", "rseq-cpu", or "sharded: " and why there are no sequences.
  const char* active_mode() const;
  // Checks every law of the table and dies on the first that is broken. No other call may run meanwhile.
  void audit() const;
  const std::string& name() const;

 private:
  struct state;
  const std::unique_ptr<state> state_;
};

template <typename T>
class handle_table;

// Holds an entry of a handle_table: others may erase it, but its object is not released before this goes. Empty if the
// handle found nothing. Any thread or task, and it may move to another; the table outlives it.
template <typename T>
class pinned {
 public:
  pinned() = default;
  pinned(pinned&& other) noexcept
      : table_(other.table_), which_(other.which_), object_(std::exchange(other.object_, nullptr)) {}
  pinned& operator=(pinned&& other) noexcept {
    if (this == &other) return *this;
    reset();
    table_ = other.table_;
    which_ = other.which_;
    object_ = std::exchange(other.object_, nullptr);
    return *this;
  }
  ~pinned() { reset(); }

  explicit operator bool() const { return object_ != nullptr; }
  T* get() const { return object_; }
  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }
  void reset() {
    if (std::exchange(object_, nullptr) != nullptr) table_->unpin(which_);
  }

 private:
  friend class handle_table<T>;
  pinned(raw_handle_table& table, handle which)
      : table_(&table), which_(which), object_(static_cast<T*>(table.pin(which))) {}

  raw_handle_table* table_ = nullptr;
  handle which_;
  T* object_ = nullptr;
};

// 32-bit handles for Ts that live elsewhere:
//
//   larder::handle_table<request> in_flight{"in_flight", {.limit = 1024}};
//   larder::handle cookie = in_flight.insert(&r);   // none at the limit
//   request* found = in_flight.find(cookie);        // null once it is erased
//   in_flight.erase(cookie);                        // true once
//
// Any thread or task; `find` is wait-free. A thin face of raw_handle_table, which documents each call.
template <typename T>
class handle_table {
 public:
  using options = raw_handle_table::options;
  using statistics = raw_handle_table::statistics;

  explicit handle_table(std::string_view name, options chosen = {}) : raw_(name, chosen) {}

  [[nodiscard]] handle insert(T* object) { return raw_.insert(object); }
  T* find(handle which) const { return static_cast<T*>(raw_.find(which)); }
  // For use while others may erase the entry.
  [[nodiscard]] pinned<T> find_pinned(handle which) { return pinned<T>(raw_, which); }
  bool erase(handle which) { return raw_.erase(which); }
  T* take(handle which) { return static_cast<T*>(raw_.take(which)); }
  // Calls `see(handle, T&)` for each entry.
  template <typename See>
  void for_each(See&& see) const {
    raw_.for_each([&see](handle which, void* object) { see(which, *static_cast<T*>(object)); });
  }
  std::size_t shrink() { return raw_.shrink(); }

  std::size_t size() const { return raw_.size(); }
  std::size_t limit() const { return raw_.limit(); }
  statistics stats() const { return raw_.stats(); }
  const char* active_mode() const { return raw_.active_mode(); }
  void audit() const { raw_.audit(); }
  const std::string& name() const { return raw_.name(); }

 private:
  raw_handle_table raw_;
};

}  // namespace larder

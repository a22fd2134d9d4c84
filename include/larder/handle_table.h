// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

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
// rest (at least 8) for the generation, which changes whenever the entry is freed, so that a stale handle does not find
// the entry's next user. Entries stand in frames of a page each, charged to the budget when first needed.
//
// After the Xen hypervisor's grant-table tracking (a table of 32-bit handles that grows by pages).
class LARDER_API raw_handle_table {
 public:
  // Leaves 8 bits for the generation.
  static constexpr std::size_t limit_max = std::size_t{1} << 24;

  struct options {
    // The most entries, exactly; 1 to limit_max.
    std::size_t limit = 1 << 16;
    // Entries whose frames are there from the start, so that inserting them cannot fail.
    std::size_t reservation = 0;
    // What frames are charged to; outlives the table. Null: memory_budget::process().
    memory_budget* budget = nullptr;
  };

  struct statistics {
    std::uint64_t entries = 0;  // used now
    std::uint64_t limit = 0;
    std::uint64_t frames = 0;
    std::uint64_t inserts = 0;
    std::uint64_t erases = 0;
    std::uint64_t insert_failures = 0;
    bytes charged;  // for frames and the directory of frames
  };

  // Takes the frames of the reservation, and a directory of 8 bytes for each frame that the limit may need; may
  // reclaim, does not wait. Throws std::bad_alloc if the budget or the system has not the memory. Dies if the limit is
  // out of range.
  raw_handle_table(std::string_view name, options chosen);
  // The table owns no object: entries still used are forgotten. Costs a call for each frame.
  ~raw_handle_table();
  raw_handle_table(const raw_handle_table&) = delete;
  raw_handle_table& operator=(const raw_handle_table&) = delete;

  // Any thread or task may call these at any time; none waits for memory. `object` is not null.
  // None at the limit, or when a new frame is needed and the budget or the system refuses it.
  [[nodiscard]] handle insert(void* object);
  // The object, or null for a handle that is stale, made up or of another table (unless it happens to be equal). Takes
  // no lock and does not wait for anybody. That others do not erase the entry meanwhile is the caller's care.
  void* find(handle which) const;
  // Erases the entry and returns its object; null if there is none. Of two at once, one gets it.
  void* take(handle which);
  // Calls `see` for each entry; entries inserted or erased meanwhile may or may not be seen. No lock is held: `see` may
  // use the table. Costs in proportion to the frames.
  void for_each(const std::function<void(handle, void*)>& see) const;

  std::size_t size() const;
  std::size_t limit() const;
  statistics stats() const;
  // Checks every law of the table and dies on the first that is broken. No other call may run meanwhile.
  void audit() const;
  const std::string& name() const;

 private:
  struct state;
  const std::unique_ptr<state> state_;
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
  bool erase(handle which) { return raw_.take(which) != nullptr; }
  T* take(handle which) { return static_cast<T*>(raw_.take(which)); }
  // Calls `see(handle, T&)` for each entry.
  template <typename See>
  void for_each(See&& see) const {
    raw_.for_each([&see](handle which, void* object) { see(which, *static_cast<T*>(object)); });
  }

  std::size_t size() const { return raw_.size(); }
  std::size_t limit() const { return raw_.limit(); }
  statistics stats() const { return raw_.stats(); }
  void audit() const { raw_.audit(); }
  const std::string& name() const { return raw_.name(); }

 private:
  raw_handle_table raw_;
};

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// What one would use instead of a handle_table. Each has 32-bit names, `insert`, `find`, and `erase`, which is true
// once where the peer knows. Two keep their entries under a mutex, one of which knows no stale name. Two have entries
// with generations that are looked up without a lock, and differ in the free list: a lock-free stack of Boost's, whose
// indices have 16 bits; and the list linked through the entries under a ticket lock that Xen's grant table began with.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#if __has_include(<boost/lockfree/stack.hpp>)
#include <boost/lockfree/stack.hpp>
#define LARDER_BENCH_BOOST_LOCKFREE 1
#else
#define LARDER_BENCH_BOOST_LOCKFREE 0
#endif

#include <larder/handle_table.h>

#include "base/atomic.h"

namespace larder::bench {

// Of every table: below the 65,535 that a stack of Boost's with a fixed size can hold.
constexpr std::uint32_t table_capacity = 65'000;

class larder_table {
 public:
  using name = handle;
  name insert(int* object) { return table_.insert(object); }
  int* find(name which) const { return table_.find(which); }
  bool erase(name which) { return table_.erase(which); }

 private:
  handle_table<int> table_{"bench", {.limit = table_capacity}};
};

class locked_vector {
 public:
  using name = std::uint32_t;

  name insert(int* object) {
    const std::lock_guard<std::mutex> locked(guard_);
    if (free_.empty()) {
      objects_.push_back(object);
      return static_cast<name>(objects_.size() - 1);
    }
    const name slot = free_.back();
    free_.pop_back();
    objects_[slot] = object;
    return slot;
  }
  int* find(name slot) const {
    const std::lock_guard<std::mutex> locked(guard_);
    return slot < objects_.size() ? objects_[slot] : nullptr;
  }
  bool erase(name slot) {
    const std::lock_guard<std::mutex> locked(guard_);
    objects_[slot] = nullptr;
    free_.push_back(slot);
    return true;
  }

 private:
  mutable std::mutex guard_;
  std::vector<int*> objects_;
  std::vector<name> free_;
};

// A name is an index in its low half and a generation in its high half, odd while the entry is used.
constexpr std::uint32_t index_of(std::uint32_t name) { return name & 0xffff; }
constexpr std::uint32_t one_generation = 1 << 16;

class locked_vector_with_generations {
 public:
  using name = std::uint32_t;

  name insert(int* object) {
    const std::lock_guard<std::mutex> locked(guard_);
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(entries_.size()));
      entries_.push_back({free_.back(), nullptr});
    }
    entry& taken = entries_[free_.back()];
    free_.pop_back();
    taken = {taken.tag + one_generation, object};
    return taken.tag;
  }
  int* find(name which) const {
    const std::lock_guard<std::mutex> locked(guard_);
    return holds(which) ? entries_[index_of(which)].object : nullptr;
  }
  bool erase(name which) {
    const std::lock_guard<std::mutex> locked(guard_);
    if (!holds(which)) return false;
    entries_[index_of(which)] = {which + one_generation, nullptr};
    free_.push_back(index_of(which));
    return true;
  }

 private:
  struct entry {
    name tag;
    int* object;
  };

  bool holds(name which) const { return index_of(which) < entries_.size() && entries_[index_of(which)].tag == which; }

  mutable std::mutex guard_;
  std::vector<entry> entries_;
  std::vector<std::uint32_t> free_;
};

// Entries that are published, found and retired without a lock; which of them are free is the derived class's care.
class tagged_entries {
 public:
  using name = std::uint32_t;

  int* find(name which) const {
    if (index_of(which) >= table_capacity) return nullptr;
    const entry& found = entries_[index_of(which)];
    if (found.tag.load(base::memory_order_acquire) != which) return nullptr;  // partner: publish
    // Acquire: if this is a later user's object, the tag below is at least as late.
    int* object = found.object.load(base::memory_order_acquire);
    return found.tag.load(base::memory_order_relaxed) == which ? object : nullptr;
  }

 protected:
  struct entry {
    base::atomic<name> tag{0};
    std::uint32_t next_free = 0;
    base::atomic<int*> object{nullptr};
  };

  tagged_entries() : entries_(table_capacity) {
    for (std::uint32_t index = 0; index < table_capacity; ++index) entries_[index].tag = index;
  }

  // The caller owns the free entry.
  name publish(std::uint32_t index, int* object) {
    entry& taken = entries_[index];
    const name made = taken.tag.load(base::memory_order_relaxed) + one_generation;  // its own, by the free list's order
    taken.object.store(object, base::memory_order_release);                         // partner: find's load of it
    taken.tag.store(made, base::memory_order_release);                              // partner: find's first load
    return made;
  }
  // True for one of many: it owns the entry then.
  bool retire(name which) {
    if (index_of(which) >= table_capacity) return false;
    return entries_[index_of(which)].tag.compare_exchange_strong(which, which + one_generation);
  }

  std::vector<entry> entries_;
};

#if LARDER_BENCH_BOOST_LOCKFREE

class boost_free_list : public tagged_entries {
 public:
  boost_free_list() {
    for (std::uint32_t index = table_capacity; index > 0; --index) free_.bounded_push(index - 1);
  }
  name insert(int* object) {
    std::uint32_t index;
    return free_.pop(index) ? publish(index, object) : 0;
  }
  bool erase(name which) { return retire(which) && free_.bounded_push(index_of(which)); }

 private:
  boost::lockfree::stack<std::uint32_t, boost::lockfree::fixed_sized<true>> free_{table_capacity};
};

#endif

// First come, first served. In a kernel a holder is not preempted; here one may be, so who waits long gives way.
class ticket_lock {
 public:
  void lock() {
    const std::uint32_t mine = next_.fetch_add(1, base::memory_order_relaxed);  // the order comes with `serving_`
    for (int looks = 1; serving_.load(base::memory_order_acquire) != mine; ++looks) {  // partner: unlock
      if (looks % 100 == 0) {
        std::this_thread::yield();
      } else {
        _mm_pause();
      }
    }
  }
  void unlock() {
    // Relaxed: only the holder writes it. Release: partner is the load in lock.
    serving_.store(serving_.load(base::memory_order_relaxed) + 1, base::memory_order_release);
  }

 private:
  base::atomic<std::uint32_t> next_{0};
  base::atomic<std::uint32_t> serving_{0};
};

class ticket_locked_list : public tagged_entries {
 public:
  ticket_locked_list() {
    for (std::uint32_t index = 0; index < table_capacity; ++index) entries_[index].next_free = index + 1;
  }
  name insert(int* object) {
    std::uint32_t index;
    {
      const std::lock_guard<ticket_lock> locked(guard_);
      index = first_free_;
      if (index == table_capacity) return 0;
      first_free_ = entries_[index].next_free;
    }
    return publish(index, object);
  }
  bool erase(name which) {
    if (!retire(which)) return false;
    const std::lock_guard<ticket_lock> locked(guard_);
    entries_[index_of(which)].next_free = first_free_;
    first_free_ = index_of(which);
    return true;
  }

 private:
  ticket_lock guard_;
  std::uint32_t first_free_ = 0;  // table_capacity: none
};

}  // namespace larder::bench

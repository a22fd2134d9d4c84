// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <stdexcept>

#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/check.h"

namespace larder {

// Knows which objects of a cache under test are built: each construction must be of an object that is not, each
// destruction of one that is (KF-1). Marks the first and last byte of a built object and checks the marks. Dies where
// that is broken, so that a fuzzer sees it as well.
class object_census {
 public:
  raw_cache::options options_for(std::size_t size, memory_budget& budget) {
    raw_cache::options chosen;
    chosen.size = size;
    chosen.budget = &budget;
    chosen.construct = &construct;
    chosen.destroy = &destroy;
    chosen.context = this;
    size_ = size;
    return chosen;
  }

  void check_contents(const void* object) const {
    const auto* first = static_cast<const unsigned char*>(object);
    LARDER_CHECK(first[0] == mark(object) && first[size_ - 1] == mark(object), "object %p is not as it was built",
                 object);
  }
  std::size_t built() const {
    const std::lock_guard<std::mutex> locked(guard_);
    return built_.size();
  }
  template <typename Visit>
  void for_each_built(Visit visit) const {
    const std::lock_guard<std::mutex> locked(guard_);
    for (const void* object : built_) visit(object);
  }
  std::uint64_t constructions() const { return constructions_; }
  std::uint64_t destructions() const { return destructions_; }

  // The construction after `count` more fails, once: by an error, or by a std::runtime_error.
  void fail_after(std::int64_t count, bool by_exception = false) {
    throws_ = by_exception;
    until_failure_ = count;
  }
  // Every construction fails from now on, or none.
  void fail_always(bool fail) { fails_always_ = fail; }

 private:
  static unsigned char mark(const void* object) {
    return static_cast<unsigned char>(reinterpret_cast<std::uintptr_t>(object) >> 3 | 1);
  }
  static result<void> construct(void* object, void* self) {
    auto& census = *static_cast<object_census*>(self);
    if (census.fails_always_) return error_from(EIO);
    if (census.until_failure_-- == 0) {
      if (census.throws_) throw std::runtime_error("a constructor that throws");
      return error_from(EIO);
    }
    ++census.constructions_;
    auto* first = static_cast<unsigned char*>(object);
    first[0] = first[census.size_ - 1] = mark(object);
    const std::lock_guard<std::mutex> locked(census.guard_);
    LARDER_CHECK(census.built_.insert(object).second, "object %p is constructed twice", object);
    return {};
  }
  static void destroy(void* object, void* self) {
    auto& census = *static_cast<object_census*>(self);
    ++census.destructions_;
    census.check_contents(object);
    const std::lock_guard<std::mutex> locked(census.guard_);
    LARDER_CHECK(census.built_.erase(object) == 1, "object %p is destroyed without being built", object);
  }

  std::size_t size_ = 1;
  base::atomic<std::int64_t> until_failure_{-1};
  base::atomic<bool> throws_{false};
  base::atomic<bool> fails_always_{false};
  base::atomic<std::uint64_t> constructions_{0};
  base::atomic<std::uint64_t> destructions_{0};
  mutable std::mutex guard_;
  std::set<void*> built_;  // guarded by guard_
};

}  // namespace larder

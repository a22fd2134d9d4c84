// SPDX-License-Identifier: Apache-2.0
//
// The C face. Each entry checks its pointers, calls the C++ face and says in errno what that said; `noexcept` entries
// catch what may be thrown, at no cost where nothing is.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include <larder/larder.h>
#include <larder/memory_budget.h>
#include <larder/raw_cache.h>

#include "os/clock.h"

struct larder_budget {
  larder_budget(const char* name, const larder_budget_options& chosen)
      : owned(std::make_unique<larder::memory_budget>(
            name, larder::memory_budget::options{.limit = limit_of(chosen), .reserve = {chosen.reserve_bytes}},
            chosen.parent == nullptr ? nullptr : &chosen.parent->budget)),
        budget(*owned),
        parent(chosen.parent) {
    if (parent != nullptr) ++parent->children;
  }
  explicit larder_budget(larder::memory_budget& of_the_process) : budget(of_the_process) {}
  ~larder_budget() {
    owned.reset();  // first: once the parent has no children, it may go
    if (parent != nullptr) --parent->children;
  }
  larder_budget(const larder_budget&) = delete;
  larder_budget& operator=(const larder_budget&) = delete;

  static larder::bytes limit_of(const larder_budget_options& chosen) {
    return chosen.limit_bytes == 0 ? larder::unlimited : std::min(larder::bytes{chosen.limit_bytes}, larder::unlimited);
  }

  std::unique_ptr<larder::memory_budget> owned;  // null for the process's
  larder::memory_budget& budget;
  larder_budget* const parent = nullptr;
  std::atomic<std::size_t> children{0};
};

struct larder_cache {
  larder_cache(const char* name, const larder_cache_options& options)
      : chosen(options), raw(name, raw_options()), mode(raw.active_mode().name), reason(raw.active_mode().reason) {}
  larder_cache(const larder_cache&) = delete;
  larder_cache& operator=(const larder_cache&) = delete;

  larder::raw_cache::options raw_options() {
    larder::raw_cache::options made;
    made.size = chosen.object_size;
    if (chosen.alignment != 0) made.alignment = chosen.alignment;
    made.reservation = chosen.reservation;
    if (chosen.limit != 0) made.limit = chosen.limit;
    if (chosen.budget != nullptr) made.budget = &chosen.budget->budget;
    if (chosen.construct != nullptr) made.construct = &construct;
    if (chosen.destroy != nullptr) made.destroy = &destroy;
    if (chosen.reset != nullptr) made.reset = &reset;
    made.context = this;
    return made;
  }
  static larder::result<void> construct(void* object, void* self) {
    const larder_cache_options& user = static_cast<larder_cache*>(self)->chosen;
    const int error_number = user.construct(object, user.context);
    if (error_number != 0) return larder::error_from(error_number);
    return {};
  }
  static void destroy(void* object, void* self) {
    const larder_cache_options& user = static_cast<larder_cache*>(self)->chosen;
    user.destroy(object, user.context);
  }
  static void reset(void* object, void* self) {
    const larder_cache_options& user = static_cast<larder_cache*>(self)->chosen;
    user.reset(object, user.context);
  }

  const larder_cache_options chosen;  // used by the constructor of `raw` already
  larder::raw_cache raw;
  const std::string mode;  // the views of active_mode end in no 0
  const std::string reason;
};

namespace {

using larder::time_point;

// Inside a catch.
int error_number_of_exception() noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  } catch (const std::system_error& thrown) {
    return thrown.code().value();
  } catch (...) {
    return ECANCELED;
  }
}

std::nullptr_t no_object(int error_number) {
  errno = error_number;
  return nullptr;
}
std::uint64_t no_number(int error_number) {
  errno = error_number;
  return 0;
}

// The structs' lengths when they first came, which never change: a shorter one is no such struct. Nor is one longer
// than a page: then the size was not set.
constexpr std::size_t budget_options_least = 32;
constexpr std::size_t cache_options_least = 80;
constexpr std::size_t cache_statistics_least = 120;
constexpr std::size_t struct_size_most = larder::page_size;
static_assert(sizeof(larder_budget_options) >= budget_options_least);
static_assert(sizeof(larder_cache_options) >= cache_options_least);
static_assert(sizeof(larder_cache_statistics) >= cache_statistics_least);

bool has_size(std::size_t struct_size, std::size_t least) {
  return struct_size >= least && struct_size <= struct_size_most;
}

// The caller's struct in the length that the library knows.
template <typename Options>
int copy_options(const Options* given, std::size_t least, Options& copy) {
  if (given == nullptr || !has_size(given->struct_size, least)) return EINVAL;
  const auto* const start = reinterpret_cast<const unsigned char*>(given);
  const std::size_t known = std::min(given->struct_size, sizeof(Options));
  if (std::any_of(start + known, start + given->struct_size, [](unsigned char byte) { return byte != 0; })) {
    return E2BIG;
  }
  copy = {};
  std::memcpy(&copy, given, known);
  return 0;
}

// Fills the caller's struct, whatever its length.
template <typename Statistics>
void copy_statistics(const Statistics& now, Statistics* to) {
  const std::size_t length = to->struct_size;
  const std::size_t known = std::min(length, sizeof(Statistics));
  std::memcpy(to, &now, known);
  std::memset(reinterpret_cast<unsigned char*>(to) + known, 0, length - known);
  to->struct_size = length;
}

void* get(larder_cache* cache, time_point deadline) noexcept {
  try {
    const larder::result<void*> object = cache->raw.get(deadline);
    return object ? *object : no_object(object.error().value());
  } catch (...) {
    return no_object(error_number_of_exception());
  }
}

time_point after(std::uint64_t timeout_ns) {
  const time_point now = larder::os::now();
  const auto left = static_cast<std::uint64_t>((larder::no_deadline - now).count());
  return timeout_ns < left ? now + std::chrono::nanoseconds(timeout_ns) : larder::no_deadline;
}

}  // namespace

// -- budgets

larder_budget* larder_budget_create(const char* name, const larder_budget_options* options) noexcept {
  larder_budget_options chosen;
  if (name == nullptr) return no_object(EINVAL);
  if (const int wrong = copy_options(options, budget_options_least, chosen)) return no_object(wrong);
  if (larder::bytes{chosen.reserve_bytes} > larder_budget::limit_of(chosen)) return no_object(EINVAL);
  try {
    return new larder_budget(name, chosen);
  } catch (...) {
    return no_object(error_number_of_exception());
  }
}

int larder_budget_destroy(larder_budget* budget) noexcept {
  if (budget == nullptr) return EINVAL;
  if (budget->owned == nullptr || budget->budget.used() != larder::bytes{} || budget->children != 0) return EBUSY;
  delete budget;
  return 0;
}

larder_budget* larder_budget_process(void) noexcept {
  try {
    static larder_budget* const instance = new larder_budget(larder::memory_budget::process());
    return instance;
  } catch (...) {
    return no_object(error_number_of_exception());
  }
}

uint64_t larder_budget_used(const larder_budget* budget) noexcept {
  return budget == nullptr ? no_number(EINVAL) : budget->budget.used().count;
}
uint64_t larder_budget_peak(const larder_budget* budget) noexcept {
  return budget == nullptr ? no_number(EINVAL) : budget->budget.peak().count;
}
uint64_t larder_budget_limit(const larder_budget* budget) noexcept {
  if (budget == nullptr) return no_number(EINVAL);
  const larder::bytes limit = budget->budget.limit();
  return limit == larder::unlimited ? std::numeric_limits<uint64_t>::max() : limit.count;
}

// -- caches

larder_cache* larder_cache_create(const char* name, const larder_cache_options* options) noexcept {
  larder_cache_options chosen;
  if (name == nullptr) return no_object(EINVAL);
  if (const int wrong = copy_options(options, cache_options_least, chosen)) return no_object(wrong);
  try {
    return new larder_cache(name, chosen);
  } catch (...) {
    return no_object(error_number_of_exception());
  }
}

int larder_cache_destroy(larder_cache* cache) noexcept {
  if (cache == nullptr) return EINVAL;
  const larder::raw_cache::statistics now = cache->raw.stats();
  if (now.objects_out != 0 || now.waiting != 0) return EBUSY;
  delete cache;
  return 0;
}

void* larder_cache_alloc(larder_cache* cache) noexcept {
  return cache == nullptr ? no_object(EINVAL) : get(cache, larder::no_deadline);
}

void* larder_cache_alloc_timeout(larder_cache* cache, uint64_t timeout_ns) noexcept {
  return cache == nullptr ? no_object(EINVAL) : get(cache, after(timeout_ns));
}

void* larder_cache_try_alloc(larder_cache* cache) noexcept {
  if (cache == nullptr) return no_object(EINVAL);
  void* const object = cache->raw.try_get();
  return object != nullptr ? object : no_object(EAGAIN);
}

int larder_cache_free(larder_cache* cache, void* object) noexcept {
  if (cache == nullptr || object == nullptr) return EINVAL;
  cache->raw.put(object);
  return 0;
}

uint64_t larder_cache_reap(larder_cache* cache, uint64_t wanted_bytes) noexcept {
  if (cache == nullptr) return no_number(EINVAL);
  return cache->raw.trim(std::min(larder::bytes{wanted_bytes}, larder::unlimited)).count;
}

int larder_cache_stats(const larder_cache* cache, larder_cache_statistics* statistics) noexcept {
  if (cache == nullptr || statistics == nullptr) return EINVAL;
  if (!has_size(statistics->struct_size, cache_statistics_least)) return EINVAL;
  const larder::raw_cache::statistics now = cache->raw.stats();
  larder_cache_statistics shown = {};
  shown.objects_out = now.objects_out;
  shown.objects_cached = now.objects_cached + now.objects_in_depot;
  shown.objects_built = now.objects_built;
  shown.slabs = now.slabs_full + now.slabs_partial + now.slabs_empty;
  shown.objects_per_slab = now.objects_per_slab;
  shown.slab_bytes = now.slab_bytes.count;
  shown.charged_bytes = now.charged.count;
  shown.constructed = now.constructed;
  shown.construct_failures = now.construct_failures;
  shown.destroyed = now.destroyed;
  shown.allocs = now.gets;
  shown.frees = now.puts;
  shown.waits = now.waits;
  shown.waiting = now.waiting;
  copy_statistics(shown, statistics);
  return 0;
}

int larder_cache_audit(const larder_cache* cache) noexcept {
  if (cache == nullptr) return EINVAL;
  cache->raw.audit();
  return 0;
}

const char* larder_cache_name(const larder_cache* cache) noexcept {
  return cache == nullptr ? no_object(EINVAL) : cache->raw.name().c_str();
}
const char* larder_cache_active_mode(const larder_cache* cache) noexcept {
  return cache == nullptr ? no_object(EINVAL) : cache->mode.c_str();
}
const char* larder_cache_mode_reason(const larder_cache* cache) noexcept {
  return cache == nullptr ? no_object(EINVAL) : cache->reason.c_str();
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <larder/debug.h>
#include <larder/memory_budget.h>
#include <larder/raw_cache.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

// How an object_cache builds and destroys its objects: the default-constructed T. A class of your own has the same two
// functions, static or not, and may have `void reset(T&)`, called on each put. `construct` builds a T at `memory` and
// returns it; it fails by returning null or an error (as result<T*>) or by throwing. The others must not throw.
template <typename T>
struct default_traits {
  static T* construct(void* memory) { return ::new (memory) T(); }
  static void destroy(T& object) { object.~T(); }
};

struct object_cache_options {
  std::size_t reservation = 0;                       // objects that are always built
  std::size_t limit = raw_cache::no_limit;           // the most that are built at any time
  memory_budget* budget = nullptr;                   // null: memory_budget::process()
  std::optional<debug_checks> debug = std::nullopt;  // nothing: as LARDER_DEBUG says (debug.h)
};

// Keeps Ts in their constructed state, ready for reuse on every CPU, in memory charged to a budget:
//
//   larder::object_cache<request> requests{"requests", {.reservation = 64, .limit = 10'000}};
//   request* r = requests.get();      // built once, handed out many times as it was put back
//   requests.put(r);
//   auto owned = requests.acquire();  // puts it back by itself
//
// A thin face of raw_cache, which documents each call. Any thread or task, any time.
template <typename T, typename Traits = default_traits<T>>
class object_cache {
 public:
  // Puts an acquired object back; outlived by the cache.
  struct putter {
    object_cache* cache = nullptr;
    void operator()(T* object) const { cache->put(object); }
  };
  using owned = std::unique_ptr<T, putter>;

  // Builds the reservation. Throws std::bad_alloc where the budget has not the memory, std::system_error for other
  // errors, and what a constructor throws.
  explicit object_cache(std::string_view name, object_cache_options chosen = {}, Traits traits = {})
      : traits_(std::move(traits)), raw_(name, raw_options(chosen)) {}

  // Waits for an object, for ever if need be. Null only where waiting cannot help: no memory will ever do, or the
  // constructor failed (what it throws passes through).
  T* get() {
    if (void* object = raw_.pop()) [[likely]]
      return static_cast<T*>(object);
    return get_below();
  }
  // The same until the deadline (ETIMEDOUT), and with the reason.
  result<T*> get(time_point deadline) {
    const result<void*> object = raw_.get(deadline);
    if (!object) return object.error();
    return static_cast<T*>(*object);
  }
  // Null at once if there is none.
  T* try_get() { return static_cast<T*>(raw_.try_get()); }
  void put(T* object) { raw_.put(object); }
  // Like get, in a unique_ptr that puts back.
  owned acquire() { return owned(get(), putter{this}); }
  owned try_acquire() { return owned(try_get(), putter{this}); }

  // Up to `count` objects into `objects`, without waiting; returns how many.
  std::size_t get_many(T** objects, std::size_t count) {
    std::size_t got = 0;
    void* batch[batch_length];
    while (got < count) {
      const std::size_t asked = count - got < batch_length ? count - got : batch_length;
      const std::size_t given = raw_.get_many(batch, asked);
      for (std::size_t i = 0; i < given; ++i) objects[got++] = static_cast<T*>(batch[i]);
      if (given < asked) break;
    }
    return got;
  }
  void put_many(T* const* objects, std::size_t count) {
    void* batch[batch_length];
    for (std::size_t done = 0; done < count;) {
      std::size_t filled = 0;
      while (filled < batch_length && done < count) batch[filled++] = objects[done++];
      raw_.put_many(batch, filled);
    }
  }

  bytes trim(bytes wanted = unlimited) { return raw_.trim(wanted); }
  raw_cache::statistics stats() const { return raw_.stats(); }
  void audit() const { raw_.audit(); }
  raw_cache::mode active_mode() const { return raw_.active_mode(); }
  const std::string& name() const { return raw_.name(); }
  std::size_t reservation() const { return raw_.reservation(); }
  result<void> set_reservation(std::size_t count) { return raw_.set_reservation(count); }

 private:
  [[gnu::noinline]] T* get_below() {
    const result<void*> object = raw_.get_below(no_deadline);
    return object ? static_cast<T*>(*object) : nullptr;
  }

  // Pointers are copied through the stack in pieces of this many: T* and void* are different types.
  static constexpr std::size_t batch_length = 64;

  static result<void> construct(void* memory, void* self) {
    const result<T*> built = static_cast<object_cache*>(self)->traits_.construct(memory);
    if (!built) return built.error();
    if (*built == nullptr) return error_from(ENOMEM);
    return {};
  }
  static void destroy(void* object, void* self) {
    static_cast<object_cache*>(self)->traits_.destroy(*static_cast<T*>(object));
  }
  static constexpr bool resets = requires(Traits traits, T& object) { traits.reset(object); };
  static void reset(void* object, void* self) {
    if constexpr (resets) static_cast<object_cache*>(self)->traits_.reset(*static_cast<T*>(object));
  }

  raw_cache::options raw_options(const object_cache_options& chosen) {
    raw_cache::options raw;
    raw.size = sizeof(T);
    raw.alignment = alignof(T);
    raw.reservation = chosen.reservation;
    raw.limit = chosen.limit;
    raw.budget = chosen.budget;
    raw.debug = chosen.debug;
    raw.construct = &construct;
    raw.destroy = &destroy;
    if (resets) raw.reset = &reset;
    raw.context = this;
    return raw;
  }

  Traits traits_;  // used by the constructor of raw_ already
  raw_cache raw_;
};

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "base/schedule.h"

#ifdef LARDER_SCHEDULED

namespace larder::base {

// What `atomic` is in the scheduled build: the part of std::atomic's interface that this library uses, with a
// scheduling point before each operation. Logical threads run one at a time, so a plain value is enough. Executions are
// sequentially consistent, whatever the orders, but where a test asks for store buffers (x86's memory model).
template <typename T>
class atomic {
 public:
  using value_type = T;
  static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

  constexpr atomic() noexcept = default;
  constexpr atomic(T value) noexcept : value_(value) {}  // implicit, as std::atomic's
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T load(std::memory_order = std::memory_order_seq_cst) const {
    const void* own = schedule::load(&value_);
    return own != nullptr ? *static_cast<const T*>(own) : value_;
  }
  operator T() const { return load(); }

  void store(T desired, std::memory_order order = std::memory_order_seq_cst) {
    if (order != std::memory_order_seq_cst) {
      if (schedule::weak_store(&value_, &desired, sizeof desired)) return;
    } else {
      schedule::point(&value_, schedule::access::store);
    }
    value_ = desired;
  }
  T operator=(T desired) {
    store(desired);
    return desired;
  }

  T exchange(T desired, std::memory_order = std::memory_order_seq_cst) {
    return update([desired](T) { return desired; });
  }

  bool compare_exchange_strong(T& expected, T desired, std::memory_order = std::memory_order_seq_cst) {
    schedule::point(&value_, schedule::access::update);
    if (value_ == expected) {
      value_ = desired;
      return true;
    }
    expected = value_;
    return false;
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order success, std::memory_order) {
    return compare_exchange_strong(expected, desired, success);
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order order = std::memory_order_seq_cst) {
    return compare_exchange_strong(expected, desired, order);
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order success, std::memory_order) {
    return compare_exchange_strong(expected, desired, success);
  }

  T fetch_add(T by, std::memory_order = std::memory_order_seq_cst) {
    return update([by](T value) { return static_cast<T>(value + by); });
  }
  T fetch_sub(T by, std::memory_order = std::memory_order_seq_cst) {
    return update([by](T value) { return static_cast<T>(value - by); });
  }
  T fetch_or(T bits, std::memory_order = std::memory_order_seq_cst) {
    return update([bits](T value) { return static_cast<T>(value | bits); });
  }
  T fetch_and(T bits, std::memory_order = std::memory_order_seq_cst) {
    return update([bits](T value) { return static_cast<T>(value & bits); });
  }
  T operator+=(T by) { return static_cast<T>(fetch_add(by) + by); }
  T operator-=(T by) { return static_cast<T>(fetch_sub(by) - by); }
  T operator++() { return static_cast<T>(fetch_add(1) + 1); }
  T operator--() { return static_cast<T>(fetch_sub(1) - 1); }
  T operator++(int) { return fetch_add(1); }
  T operator--(int) { return fetch_sub(1); }

  // The value without a scheduling point: for the simulations of the system, which make their own.
  T& unscheduled() { return value_; }
  const T& unscheduled() const { return value_; }

 private:
  template <typename Function>
  T update(Function change) {
    schedule::point(&value_, schedule::access::update);
    const T before = value_;
    value_ = change(before);
    return before;
  }

  T value_{};
};

}  // namespace larder::base

#endif

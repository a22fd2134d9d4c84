// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

namespace larder {

// An error number of the system (errno), as a type; 0 is never held.
inline std::error_code error_from(int error_number) { return {error_number, std::generic_category()}; }

namespace detail {

// An error that may be none. An empty std::error_code has a category, whose address only a call tells; this has none,
// so that what succeeds makes no call for it.
class failure {
 public:
  failure() = default;
  explicit failure(std::error_code error) : number_(error.value()), category_(&error.category()) {}
  explicit operator bool() const { return number_ != 0; }
  std::error_code error() const {
    return category_ == nullptr ? std::error_code() : std::error_code(number_, *category_);
  }

 private:
  int number_ = 0;
  const std::error_category* category_ = nullptr;
};

}  // namespace detail

// A value, or the error that came instead of it. Testing it is the caller's duty: nothing here throws.
template <typename T>
class [[nodiscard]] result {
 public:
  result(T value) : value_(std::move(value)) {}       // NOLINT(google-explicit-constructor): a value is a result
  result(std::error_code error) : failure_(error) {}  // NOLINT(google-explicit-constructor): so is an error
  explicit operator bool() const { return value_.has_value(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  std::error_code error() const { return failure_.error(); }

 private:
  std::optional<T> value_;
  detail::failure failure_;
};

template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(std::error_code error) : failure_(error) {}  // NOLINT(google-explicit-constructor)
  explicit operator bool() const { return !failure_; }
  std::error_code error() const { return failure_.error(); }

 private:
  detail::failure failure_;
};

}  // namespace larder

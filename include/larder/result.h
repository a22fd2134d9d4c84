// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

namespace larder {

// An error number of the system (errno), as a type; 0 is never held.
inline std::error_code error_from(int error_number) { return {error_number, std::generic_category()}; }

// A value, or the error that came instead of it. Testing it is the caller's duty: nothing here throws.
template <typename T>
class [[nodiscard]] result {
 public:
  result(T value) : value_(std::move(value)) {}     // NOLINT(google-explicit-constructor): a value is a result
  result(std::error_code error) : error_(error) {}  // NOLINT(google-explicit-constructor): so is an error
  explicit operator bool() const { return value_.has_value(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  std::error_code error() const { return error_; }

 private:
  std::optional<T> value_;
  std::error_code error_;
};

template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(std::error_code error) : error_(error) {}  // NOLINT(google-explicit-constructor)
  explicit operator bool() const { return !error_; }
  std::error_code error() const { return error_; }

 private:
  std::error_code error_;
};

}  // namespace larder

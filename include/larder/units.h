// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace larder {

// An amount of memory or data in bytes. A type of its own, so that a count of pages or objects is never taken for one.
struct bytes {
  std::uint64_t count = 0;

  friend constexpr auto operator<=>(bytes, bytes) = default;
  friend constexpr bytes operator+(bytes a, bytes b) { return {a.count + b.count}; }
  friend constexpr bytes operator-(bytes a, bytes b) { return {a.count - b.count}; }
  friend constexpr bytes operator*(bytes a, std::uint64_t n) { return {a.count * n}; }
  friend constexpr bytes operator/(bytes a, std::uint64_t n) { return {a.count / n}; }
  friend constexpr std::uint64_t operator/(bytes a, bytes b) { return a.count / b.count; }
  constexpr bytes& operator+=(bytes other) { return count += other.count, *this; }
  constexpr bytes& operator-=(bytes other) { return count -= other.count, *this; }
};

// "No limit": larger than anything that can be charged.
inline constexpr bytes unlimited{std::numeric_limits<std::uint64_t>::max() / 2};

inline namespace literals {
constexpr bytes operator""_B(unsigned long long n) { return {n}; }
constexpr bytes operator""_KiB(unsigned long long n) { return {n << 10}; }
constexpr bytes operator""_MiB(unsigned long long n) { return {n << 20}; }
constexpr bytes operator""_GiB(unsigned long long n) { return {n << 30}; }
}  // namespace literals

// The page of the page cache and of the memory system: the unit in which memory is taken from the operating system.
inline constexpr std::size_t page_size = 4096;

// Rounds up to a whole number of `unit`s; `unit` is a power of two.
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }
constexpr bytes round_up_to_pages(bytes amount) { return {round_up(amount.count, page_size)}; }

// Points in time for every deadline in the library: the monotonic clock.
using time_point = std::chrono::steady_clock::time_point;
inline constexpr time_point no_deadline = time_point::max();

}  // namespace larder

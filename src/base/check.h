// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::base {

// Prints `larder: file:line: message` to stderr and aborts. For proven corruption and misuse only: an error that a
// correct program can meet is returned to it.
[[noreturn, gnu::cold, gnu::format(printf, 3, 4)]] void die(const char* file, int line, const char* format, ...);

}  // namespace larder::base

// A programmer's error or corruption, checked in every build; the message says what was seen.
#define LARDER_CHECK(condition, ...)                        \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::larder::base::die(__FILE__, __LINE__, __VA_ARGS__); \
  } while (false)

// The same, where a check in release builds would cost the fast path.
#ifdef LARDER_DEBUG_CHECKS
#define LARDER_ASSERT(condition, ...) LARDER_CHECK(condition, __VA_ARGS__)
#else
#define LARDER_ASSERT(condition, ...) \
  do {                                \
  } while (false)
#endif

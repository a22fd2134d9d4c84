// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace larder::base {

void die(const char* file, int line, const char* format, ...) {
  const char* name = std::strrchr(file, '/');
  std::fprintf(stderr, "larder: %s:%d: ", name != nullptr ? name + 1 : file, line);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

}  // namespace larder::base

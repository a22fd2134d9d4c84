// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/schedule.h"

namespace larder::base {

void die(const char* file, int line, const char* format, ...) {
  const char* name = std::strrchr(file, '/');
  name = name != nullptr ? name + 1 : file;
  va_list arguments;
  va_start(arguments, format);
#ifdef LARDER_SCHEDULED
  char message[1024];
  const int prefix = std::snprintf(message, sizeof message, "%s:%d: ", name, line);
  va_list copied;
  va_copy(copied, arguments);
  std::vsnprintf(message + prefix, sizeof message - static_cast<std::size_t>(prefix), format, copied);
  va_end(copied);
  schedule::check_failed(message);  // comes back only outside of a schedule
#endif
  std::fprintf(stderr, "larder: %s:%d: ", name, line);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

}  // namespace larder::base

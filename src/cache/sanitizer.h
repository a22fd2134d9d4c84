// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/sanitizers.h"

#ifdef LARDER_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace larder::cache {

// AddressSanitizer sees a cached object as freed: from its put to its next get, any use of it is reported. Elsewhere
// these cost nothing.
inline void forbid_access([[maybe_unused]] const void* start, [[maybe_unused]] std::size_t length) {
#ifdef LARDER_ADDRESS_SANITIZER
  ASAN_POISON_MEMORY_REGION(start, length);
#endif
}
inline void allow_access([[maybe_unused]] const void* start, [[maybe_unused]] std::size_t length) {
#ifdef LARDER_ADDRESS_SANITIZER
  ASAN_UNPOISON_MEMORY_REGION(start, length);
#endif
}

}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
#include "os/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/schedule.h"
#include "os/fault.h"

namespace larder::os {

result<void*> map(bytes length, std::size_t alignment) {
  LARDER_CHECK(length.count % page_size == 0 && length.count > 0, "map of %llu bytes: not whole pages",
               static_cast<unsigned long long>(length.count));
  LARDER_CHECK(alignment >= page_size && std::has_single_bit(alignment), "map aligned to %zu bytes", alignment);
  if (fault::fires(call::map)) return error_from(errno);
  // An aligned run is cut out of a longer one: both ends go back at once.
  const std::uint64_t slack = alignment - page_size;
  void* start =
      ::mmap(nullptr, length.count + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return error_from(errno);
  const auto first = reinterpret_cast<std::uintptr_t>(start);
  const std::uintptr_t aligned = round_up(first, alignment);
  if (aligned != first) ::munmap(start, aligned - first);
  const std::uint64_t behind = slack - (aligned - first);
  if (behind != 0) ::munmap(reinterpret_cast<void*>(aligned + length.count), behind);
  void* address = reinterpret_cast<void*>(aligned);
  // Small runs too: neighbours become one mapping, which then could hold a huge page. Only advice: a kernel without
  // huge pages refuses it, and then there is nothing to turn off.
  (void)::madvise(address, length.count, MADV_NOHUGEPAGE);
  return address;
}

void unmap(void* address, bytes length) {
#ifdef LARDER_SCHEDULED
  base::schedule::point(address, base::schedule::access::store);  // the thread's own stores are made before
#endif
  if (::munmap(address, length.count) == 0) return;
  // Cutting a hole into a mapping takes one more, and there may be no more: then the memory goes back all the same, and
  // only the addresses are lost (KF-31).
  const int error_number = errno;
  LARDER_CHECK(error_number == ENOMEM && ::madvise(address, length.count, MADV_DONTNEED) == 0,
               "munmap(%p, %llu) failed with errno %d", address, static_cast<unsigned long long>(length.count),
               error_number);
}

result<void> discard(void* address, bytes length) {
  if (fault::fires(call::advise)) return error_from(errno);
  if (::madvise(address, length.count, MADV_DONTNEED) != 0) return error_from(errno);
  return {};
}

result<residency> look_for_residents(void* address, bytes length) {
  if (fault::fires(call::residency)) return error_from(errno);
  unsigned char pages[256];  // few, because this may run on the small stack of a task
  residency found{length, {}};
  for (bytes done; done < length;) {
    const bytes part = std::min(length - done, bytes{sizeof pages * page_size});
    if (::mincore(static_cast<char*>(address) + done.count, part.count, pages) != 0) return error_from(errno);
    for (std::size_t page = 0; page < part.count / page_size; ++page) {
      if ((pages[page] & 1) == 0) continue;
      if (found.resident == bytes{0}) found.untouched = done + bytes{page * page_size};
      found.resident += bytes{page_size};
    }
    done += part;
  }
  return found;
}

bytes physical_memory() {
  static const bytes total{static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * page_size};
  return total;
}

}  // namespace larder::os

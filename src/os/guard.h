// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <larder/result.h>
#include <larder/units.h>

namespace larder::os {

// Pages that fault at any access, for the end of a stack. A *marker* in the page table (Linux 6.13) splits no mapping
// and costs nothing. Elsewhere a guard is a change of protection, which cuts a mapping into three; of the mappings that
// the system allows a process (vm.max_map_count), all such guards together take a share at most (KF-31, KF-32), so that
// the rest of the process still finds some. The share is counted at two mappings for each guard that is in place. That
// is exact where guards come and go by whole slabs; a guard that was removed from between touched pages may leave its
// mapping cut in two until the memory is unmapped, which nothing counts, so fragmentation can take more than the share.
enum class guard_kind : std::uint8_t { marker, protection };

// Whole pages of one mapping. ENOMEM, also where the share is used up. Any thread.
result<guard_kind> install_guard(void* address, bytes length);
// Before the pages are given back: makes what a protection guards accessible again and gives its part of the share
// back. Where pages on both sides were touched meanwhile, the kernel may keep them apart until they are unmapped. A
// marker stays until the memory is unmapped; another may be installed over it.
void remove_guard(void* address, bytes length, guard_kind kind);

// The share, in percent from 0 to 100; 50, or what LARDER_GUARD_SHARE in the environment says, unless told. Guards
// that are more stay. EINVAL.
result<void> set_guard_share(unsigned percent);
unsigned guard_share();

struct guard_figures {
  std::size_t protections;      // guards that cost mappings, now
  std::size_t protections_max;  // by the share
  std::uint64_t refused;        // so far, because the share was used up
};
guard_figures guards();

}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/result.h>
#include <larder/units.h>

namespace larder::os {

// Private zeroed memory from the system, outside of any allocator. Lengths and addresses are whole pages. Any thread.

// Maps `length` at an address that is a multiple of `alignment` (a power of two, at least a page). Nothing around it
// stays mapped. Transparent huge pages are off for it, so that what is resident is what was touched. ENOMEM.
result<void*> map(bytes length, std::size_t alignment = page_size);
void unmap(void* address, bytes length);

// Gives the pages back to the system and keeps the addresses: they read as zeros and cost nothing until touched again.
// ENOMEM or EAGAIN leave the memory as it was.
result<void> discard(void* address, bytes length);

// What of whole mapped pages is resident.
struct residency {
  bytes untouched;  // before the first resident page: the whole length if there is none
  bytes resident;
};
// ENOMEM, EAGAIN. Says nothing of pages that the system has swapped out.
result<residency> look_for_residents(void* address, bytes length);

// All the memory of the machine: the address space to reserve for what can never be larger.
bytes physical_memory();

}  // namespace larder::os

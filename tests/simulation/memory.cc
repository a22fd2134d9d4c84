// SPDX-License-Identifier: Apache-2.0
//
// What takes the place of src/os/memory.cc: a story gets the same addresses each time, but for a large power of two,
// for what lies at lower addresses is taken first here and there.
#include "os/memory.h"

#include <sys/mman.h>

#include "base/check.h"
#include "base/schedule.h"
#include "tests/simulation/memory.h"

namespace larder {
namespace {

constexpr std::uint64_t region_size = std::uint64_t{1} << 36;
// More than any story maps, and than any alignment that it asks for.
constexpr std::uint64_t story_size = std::uint64_t{1} << 26;

struct region {
  region() {
    void* const whole =
        ::mmap(nullptr, region_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    LARDER_CHECK(whole != MAP_FAILED, "no addresses for the simulation's memory");
    begin = next = round_up(reinterpret_cast<std::uintptr_t>(whole), story_size);
    end = reinterpret_cast<std::uintptr_t>(whole) + region_size;
  }
  std::uintptr_t begin;  // of this story
  std::uintptr_t next;
  std::uintptr_t end;
  std::uint64_t mapped = 0;  // bytes of this story
};

region& the_region() {
  static region only;
  return only;
}

}  // namespace

namespace simulation {

void renew_memory() {
  region& all = the_region();
  if (all.mapped > 0) all.begin = round_up(all.next, story_size);  // of a story that failed: it stays
  all.next = all.begin;
  all.mapped = 0;
}

}  // namespace simulation

namespace os {

result<void*> map(bytes length, std::size_t alignment) {
  region& all = the_region();
  const std::uintptr_t start = round_up(all.next, alignment);
  LARDER_CHECK(start + length.count <= all.end, "the simulation's addresses are used up");
  all.next = start + length.count;
  all.mapped += length.count;
  return reinterpret_cast<void*>(start);
}

void unmap(void* address, bytes length) {
  base::schedule::point(address, base::schedule::access::store);
  LARDER_CHECK(discard(address, length), "memory of the simulation is not given back");
  the_region().mapped -= length.count;
}

result<void> discard(void* address, bytes length) {
  if (::madvise(address, length.count, MADV_DONTNEED) != 0) return error_from(EIO);
  return {};
}

result<residency> look_for_residents(void*, bytes length) { return residency{length, {}}; }

bytes physical_memory() { return 1_GiB; }

}  // namespace os
}  // namespace larder

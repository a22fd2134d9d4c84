// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>
#include <sys/rseq.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "bench/floor.h"
#include "bench/object_cache/source.h"
#include "os/cpu.h"

namespace larder::bench {

// A floor of bench/floor.h whose words are the addresses of objects, side by side in memory of their own. A stack must
// never run empty, so objects go back to it from where they were taken, or nearly: not to another thread for good.
template <typename Object, typename Stack>
class from_stack : public source {
 public:
  static constexpr bool is_only_one = std::is_same_v<Stack, thread_stack>;

  explicit from_stack(const demand& needed) : source(needed), stack_([this] { return next_object(); }) {
    LARDER_CHECK(needed.objects < floor_depth / 2, "a floor has no %zu objects", needed.objects);
  }
  ~from_stack() { ::munmap(memory_, length()); }

  void* get() { return reinterpret_cast<void*>(stack_.insert(nullptr)); }
  void put(void* object) { stack_.erase(reinterpret_cast<std::uint64_t>(object)); }

 private:
  static std::size_t length() {
    const std::size_t stacks = is_only_one ? 1 : static_cast<std::size_t>(os::possible_cpus());
    return stacks * (floor_depth / 2) * sizeof(Object);
  }
  static char* map() {
    void* mapped =
        ::mmap(nullptr, length(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    LARDER_CHECK(mapped != MAP_FAILED, "no memory for the floor's objects");
    return static_cast<char*>(mapped);
  }
  std::uint64_t next_object() { return reinterpret_cast<std::uint64_t>(memory_ + made_++ * sizeof(Object)); }

  char* const memory_ = map();
  std::size_t made_ = 0;
  Stack stack_;
};

template <typename Object>
using from_rseq_array = from_stack<Object, rseq_array>;
template <typename Object>
using from_thread_stack = from_stack<Object, thread_stack>;

inline bool rseq_registered() { return __rseq_size != 0; }

}  // namespace larder::bench

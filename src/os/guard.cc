// SPDX-License-Identifier: Apache-2.0
#include "os/guard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/atomic.h"
#include "base/check.h"
#include "os/fault.h"
#include "os/file.h"

// Linux 6.13; not in the C library's header yet.
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

namespace larder::os {
namespace {

constexpr unsigned share_unless_told = 50;
constexpr std::size_t mappings_of_a_guard = 2;        // the guard's, and what lies behind it
constexpr std::size_t mappings_unless_told = 65'530;  // the kernel's own choice

// How many mappings a process may have. Without /proc, what nearly every system has.
std::size_t mappings_max() {
  char text[32] = {};
  if (fault::fires(call::open)) return mappings_unless_told;
  const descriptor file(::open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC));
  if (!file || fault::fires(call::read)) return mappings_unless_told;
  const ssize_t got = ::read(file.number(), text, sizeof text);
  std::size_t read = 0;
  const bool is_number = got > 0 && std::from_chars(text, text + got, read).ec == std::errc();
  return is_number ? read : mappings_unless_told;
}

unsigned share_from_environment() {
  const char* text = std::getenv("LARDER_GUARD_SHARE");
  if (text == nullptr) return share_unless_told;
  unsigned percent = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, percent);
  LARDER_CHECK(error == std::errc() && stop == end && percent <= 100,
               "LARDER_GUARD_SHARE is \"%s\": expected a number of percent from 0 to 100", text);
  return percent;
}

std::size_t protections_for(unsigned percent) { return mappings_max() * percent / 100 / mappings_of_a_guard; }

// What follows from the share, and how much of it is used. Nothing is published by either, so all accesses are relaxed.
struct account {
  base::atomic<unsigned> share{share_from_environment()};
  base::atomic<std::size_t> most{protections_for(share.load(base::memory_order_relaxed))};
  base::atomic<std::size_t> used{0};
  base::atomic<std::uint64_t> refused{0};

  bool admit() {
    std::size_t now = used.load(base::memory_order_relaxed);
    do {
      if (now >= most.load(base::memory_order_relaxed)) {
        refused.fetch_add(1, base::memory_order_relaxed);
        return false;
      }
    } while (!used.compare_exchange_weak(now, now + 1, base::memory_order_relaxed));
    return true;
  }
  void leave() { used.fetch_sub(1, base::memory_order_relaxed); }
};

account& of_process() {
  static auto* instance = new account;
  return *instance;
}

}  // namespace

result<guard_kind> install_guard(void* address, bytes length) {
  if (!fault::fires(call::guard) && ::madvise(address, length.count, MADV_GUARD_INSTALL) == 0) {
    return guard_kind::marker;
  }
  // Anything else says that there are no markers: EINVAL, an older kernel, or locked memory, which can have none.
  if (errno == ENOMEM) return error_from(ENOMEM);
  if (!of_process().admit()) return error_from(ENOMEM);
  if (!fault::fires(call::protect) && ::mprotect(address, length.count, PROT_NONE) == 0) return guard_kind::protection;
  const int error_number = errno;
  of_process().leave();
  return error_from(error_number);
}

void remove_guard(void* address, bytes length, guard_kind kind) {
  if (kind == guard_kind::marker) return;
  // Joins mappings, and so needs none. Should the system refuse all the same, they go when the memory is unmapped.
  (void)::mprotect(address, length.count, PROT_READ | PROT_WRITE);
  of_process().leave();
}

result<void> set_guard_share(unsigned percent) {
  if (percent > 100) return error_from(EINVAL);
  account& ours = of_process();
  ours.share.store(percent, base::memory_order_relaxed);
  ours.most.store(protections_for(percent), base::memory_order_relaxed);
  return {};
}

unsigned guard_share() { return of_process().share.load(base::memory_order_relaxed); }

guard_figures guards() {
  const account& ours = of_process();
  return {ours.used.load(base::memory_order_relaxed), ours.most.load(base::memory_order_relaxed),
          ours.refused.load(base::memory_order_relaxed)};
}

}  // namespace larder::os

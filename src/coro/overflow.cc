// SPDX-License-Identifier: Apache-2.0
//
// Who runs over the end of its stack meets the guard. The kernel delivers that on a stack of the thread's own for
// signals, where there is room to say whose stack it was.
#include "coro/overflow.h"

#include <larder/coroutine.h>

#include "base/atomic.h"
#include "base/check.h"
#include "coro/fiber.h"
#include "os/memory_fault.h"

namespace larder {
namespace {

base::atomic<bool> reports{false};

void look(const void* address) {
  const detail::fiber_core* innermost = detail::this_thread().innermost;
  if (innermost == nullptr) return;
  const auto& running = static_cast<const coro::fiber&>(*innermost);
  const auto* at = static_cast<const std::byte*>(address);
  if (at >= running.stack_low() || at < running.stack_low() - page_size) return;
  unsigned depth = 1;
  for (const detail::fiber_core* outer = innermost->outer; outer != nullptr; outer = outer->outer) ++depth;
  base::die(__FILE__, __LINE__, "%s \"%s\" ran over the end of its stack of %llu KiB, at %p (nested %u deep)",
            running.is_coroutine ? "coroutine" : "task", running.name,
            static_cast<unsigned long long>((running.stack_size().count + 1023) / 1024), address, depth);
}

}  // namespace

void coro::prepare_thread_for_overflow() {
  if (reports.load(base::memory_order_relaxed)) (void)os::provide_signal_stack();
}

result<void> report_stack_overflow() {
  if (const auto provided = os::provide_signal_stack(); !provided) return provided;
  // First, so that no thread's first resume passes between: a stack for signals too many does no harm.
  reports.store(true, base::memory_order_relaxed);
  return os::watch_memory_faults(look);
}

}  // namespace larder

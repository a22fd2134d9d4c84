// SPDX-License-Identifier: Apache-2.0
#include <larder/coroutine.h>

#include "base/registry.h"
#include "coro/guard_reclaimer.h"
#include "os/guard.h"

namespace larder {

result<os::guard_kind> coro::install_stack_guard(void* page) {
  result<os::guard_kind> guarded = os::install_guard(page, {page_size});
  const auto none_there = [&] { return !guarded && guarded.error() == std::errc::not_enough_memory; };
  if (!none_there()) return guarded;
  guard_reclaimers::of_process().ask([&] {
    guarded = os::install_guard(page, {page_size});
    return !none_there();
  });
  return guarded;
}

// Never destroyed: stacks with static storage may be the last things to go.
void coro::show_stack_guards() {
  static auto* shown = new base::registration([](const base::stat_visitor& show) {
    const os::guard_figures now = os::guards();
    show({"stack_guards", "protections", now.protections});
    show({"stack_guards", "protections_max", now.protections_max});
    show({"stack_guards", "refused", now.refused});
  });
  (void)shown;
}

result<void> set_stack_guard_share(unsigned percent) { return os::set_guard_share(percent); }
unsigned stack_guard_share() { return os::guard_share(); }

}  // namespace larder

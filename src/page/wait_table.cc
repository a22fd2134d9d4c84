// SPDX-License-Identifier: Apache-2.0
#include "page/wait_table.h"

#include "os/waiting.h"

namespace larder::page {

void wait_table::wait(frame& page, state_word flags) {
  bucket& entered = bucket_of(page);
  waiter self;
  self.page = &page;
  self.owner = &os::parker::current();
  base::unique_lock locked(entered.guard);
  if ((page.state.fetch_or(waited) & flags) == 0) return;
  entered.waiters.push_back(self);
  time_point since{};
  do {
    locked.unlock();
    {
      const os::waiting noted(*self.owner, {.kind = "page", .object = &page}, since);
      self.owner->park();
    }
    locked.lock();
  } while (self.linked());
}

void wait_table::wake(frame& page) {
  bucket& entered = bucket_of(page);
  const base::lock locked(entered.guard);
  page.state.fetch_and(~waited);
  for (waiter* at = entered.waiters.front(); at != nullptr;) {
    waiter* next = entered.waiters.after(*at);
    if (at->page == &page) {
      os::parker* owner = at->owner;
      base::intrusive_list<waiter>::remove(*at);  // the waiter leaves when it sees that, under the mutex
      owner->unpark();
    }
    at = next;
  }
}

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#include "page/group_commit.h"

#include "os/waiting.h"

namespace larder::page {

result<void> group_commit::run(const std::function<result<void>()>& action) {
  waiter self;
  self.owner = &os::parker::current();
  base::unique_lock locked(guard_);
  time_point since{};
  const std::uint64_t needed = begun_ + 1;
  while (ended_ < needed) {
    if (!running_) {
      running_ = true;
      const std::uint64_t mine = ++begun_;
      locked.unlock();
      const result<void> outcome = action();
      locked.lock();
      running_ = false;
      ended_ = mine;
      outcome_ = outcome;
      while (waiter* next = waiters_.pop_front()) next->owner->unpark();
      return outcome;
    }
    if (!self.linked()) waiters_.push_back(self);
    locked.unlock();
    {
      const os::waiting noted(*self.owner, {.kind = "flush", .object = this}, since);
      self.owner->park();
    }
    locked.lock();
  }
  if (self.linked()) base::intrusive_list<waiter>::remove(self);
  return outcome_;
}

}  // namespace larder::page

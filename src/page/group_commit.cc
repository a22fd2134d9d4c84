// SPDX-License-Identifier: Apache-2.0
#include "page/group_commit.h"

namespace larder::page {

result<void> group_commit::run(const std::function<result<void>()>& action) {
  waiter self;
  self.owner = &os::parker::current();
  base::unique_lock locked(guard_);
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
    self.owner->park();
    locked.lock();
  }
  if (self.linked()) base::intrusive_list<waiter>::remove(self);
  return outcome_;
}

}  // namespace larder::page

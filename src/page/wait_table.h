// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "os/parker.h"
#include "page/frame.h"

namespace larder::page {

// Those who wait for a page to stop being busy or writing, hashed by frame.
//
// No wake-up is lost: the waiter sets `waited` and sees the flag it waits for in one atomic step; whoever clears that
// flag sees `waited` in the same way, and then takes the mutex under which the waiter was entered.
class wait_table {
 public:
  // Waits until some of the flags that are set now are cleared, or for no reason; returns at once if none is set.
  void wait(frame& page, state_word flags);
  // Wakes all who wait at the page. Called after the flags were cleared, if `waited` was set.
  void wake(frame& page);

 private:
  struct waiter : base::list_link<> {
    const frame* page = nullptr;
    os::parker* owner = nullptr;
  };
  struct bucket {
    base::mutex guard{base::lock_rank::page_wait};
    base::intrusive_list<waiter> waiters;  // guarded by `guard`
  };

  bucket& bucket_of(const frame& page) {
    return buckets_[(reinterpret_cast<std::uintptr_t>(&page) / sizeof(frame)) % buckets_.size()];
  }

  std::array<bucket, 16> buckets_;
};

}  // namespace larder::page

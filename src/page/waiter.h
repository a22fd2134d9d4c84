// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/intrusive_list.h"
#include "os/parker.h"

namespace larder::page {

// One who waits in a list to be told. Guarded by the list's mutex.
struct waiter : base::list_link<> {
  os::parker* owner = nullptr;
};

}  // namespace larder::page

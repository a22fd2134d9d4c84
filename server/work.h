// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/intrusive_list.h"

namespace larder::server {

// Something to be done on a task of one worker. It stands in what it is about, so that queueing it takes no memory.
struct work_item : base::list_link<work_item> {  // its link in the queue of a shard
  void (*run)(work_item& self) = nullptr;
};

}  // namespace larder::server

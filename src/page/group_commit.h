// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include <larder/result.h>

#include "base/mutex.h"
#include "page/waiter.h"

namespace larder::page {

// Runs an action for many who want it at once: each is served by a run that began after it asked, and one run serves
// all who asked before it began (group commit, as in database logs). Runs never overlap.
class group_commit {
 public:
  // Returns the outcome of such a run, made by this caller or by another.
  result<void> run(const std::function<result<void>()>& action);

 private:
  base::mutex guard_{base::lock_rank::page_file};
  bool running_ = false;     // guarded by guard_, as everything below
  std::uint64_t begun_ = 0;  // runs begun
  std::uint64_t ended_ = 0;  // the last run that ended
  result<void> outcome_;     // how it ended
  base::intrusive_list<waiter> waiters_;
};

}  // namespace larder::page

// SPDX-License-Identifier: Apache-2.0
#include "os/fork.h"

#include <pthread.h>

#include <mutex>

#include "base/check.h"
#include "base/registry.h"
#include "os/parker.h"

namespace larder::os {
namespace {

// Never destroyed: a fork may come at any time.
struct participants {
  std::mutex guard;
  base::intrusive_list<fork_participant> all;  // guarded by `guard`; by rank, the outermost first
};

participants& the_participants() {
  static auto* instance = [] {
    auto* made = new participants;
    const int error_number = ::pthread_atfork(
        [] {
          participants& known = the_participants();
          known.guard.lock();
          base::lock_registry_for_fork();
          for (auto* each = known.all.front(); each != nullptr; each = known.all.after(*each)) each->before_fork();
          parker::lock_pool_for_fork();
        },
        [] {
          participants& known = the_participants();
          parker::unlock_pool_after_fork();
          for (auto* each = known.all.back(); each != nullptr; each = known.all.before(*each)) each->in_parent();
          base::unlock_registry_after_fork();
          known.guard.unlock();
        },
        [] {
          participants& known = the_participants();
          parker::unlock_pool_after_fork();
          for (auto* each = known.all.back(); each != nullptr; each = known.all.before(*each)) each->in_child();
          base::unlock_registry_after_fork();
          known.guard.unlock();
        });
    LARDER_CHECK(error_number == 0, "pthread_atfork failed with error %d", error_number);
    return made;
  }();
  return *instance;
}

}  // namespace

void join_forks(fork_participant& one) {
  participants& known = the_participants();
  const std::lock_guard<std::mutex> locked(known.guard);
  // Behind the last that is not further in.
  base::intrusive_list<fork_participant> inner;
  while (known.all.back() != nullptr && known.all.back()->rank() > one.rank()) {
    fork_participant* last = known.all.back();
    base::intrusive_list<fork_participant>::remove(*last);
    inner.push_front(*last);
  }
  known.all.push_back(one);
  while (fork_participant* next = inner.pop_front()) known.all.push_back(*next);
}

void leave_forks(fork_participant& one) {
  const std::lock_guard<std::mutex> locked(the_participants().guard);
  base::intrusive_list<fork_participant>::remove(one);
}

}  // namespace larder::os

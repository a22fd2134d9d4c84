// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <exception>
#include <mutex>
#include <utility>

#include <larder/export.h>
#include <larder/runtime.h>
#include <larder/wait_queue.h>

namespace larder {

namespace task_layer {

// All of a group that does not depend on what its tasks run.
class LARDER_API group_core {
 public:
  group_core() = default;
  ~group_core();
  group_core(const group_core&) = delete;
  group_core& operator=(const group_core&) = delete;

  void enter(completion& child);
  // The child has ended. The group may be gone afterwards.
  void leave(completion& child);
  void wait();
  void cancel();
  std::size_t size() const;

 private:
  void cancel_children();
  void wait_until_empty(std::unique_lock<sync::guard_set>& held, bool can_be_cancelled);

  mutable sync::short_lock guard_;
  completion* children_ = nullptr;  // guarded by guard_, like all below
  std::size_t size_ = 0;
  bool cancelled_ = false;     // who enters is cancelled at once
  std::exception_ptr thrown_;  // by the first that threw
  sync::waiter_queue waiting_;
};

}  // namespace task_layer

// Tasks that are waited for together, and stopped together: none of them outlives the group, and the first that throws
// cancels the others. (The idea is that of structured concurrency: Sústrik's libdill, Smith's Trio.)
//
//   larder::task_group group(runtime);
//   for (disk& each : disks) group.spawn([&each] { each.scrub(); });
//   group.wait();
//
// Any thread or task may call it, its own tasks too, but for `wait` and the destructor, which are not for them.
class LARDER_API task_group {
 public:
  // Its tasks run on `on`, which outlives it.
  explicit task_group(runtime& on) : on_(on) {}
  // Cancels the tasks that have not ended and waits for them, whatever they throw.
  ~task_group() = default;
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;

  // Starts `body` as a task of the group, as runtime::spawn does. In a group that was cancelled and not waited for
  // since it is cancelled from the start: its first wait throws.
  template <typename Body>
  void spawn(Body&& body) {
    spawn_on(runtime::any_worker, std::forward<Body>(body));
  }
  // As runtime::spawn_on.
  template <typename Body>
  void spawn_on(unsigned worker, Body&& body) {
    on_.spawn_stored({.worker = worker, .group = &core_}, std::forward<Body>(body));
  }

  // Waits until none of its tasks is left; throws what the first that threw has thrown, once. Then the group is as new.
  // If the caller is a task and is cancelled meanwhile, the group's tasks are cancelled, and it throws task::cancelled
  // once they have ended. Who ended by being cancelled has thrown nothing. Dies on a task of the group.
  void wait() { core_.wait(); }
  // Cancels all of its tasks, as task::cancel does; never blocks.
  void cancel() { core_.cancel(); }
  // Tasks that have not ended.
  std::size_t size() const { return core_.size(); }

 private:
  runtime& on_;
  task_layer::group_core core_;
};

}  // namespace larder

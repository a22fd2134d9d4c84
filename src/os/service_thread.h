// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include <larder/units.h>

#include "base/mutex.h"
#include "os/parker.h"
#include "os/thread.h"

namespace larder::os {

// A thread of the library's own that serves the whole process: started when there is first something for it to do,
// asleep while there is nothing, anew in a forked child, and joined at exit. Its owner's mutex guards it.
class service_thread {
 public:
  // `name` as for `thread`. `serve` runs on it until `stopping()`.
  service_thread(const char* name, base::mutex& guard, std::function<void()> serve);

  // These with the mutex held.
  // Starts it, or ends its sleep. False where the system has no room for a thread; a later call tries again. Once the
  // process ends there is no thread any more, and nothing to do for it.
  bool wake();
  // Ends its sleep if it sleeps.
  void interrupt();
  // On the thread: drops the mutex and sleeps until woken, at most until `due`.
  void sleep_until(base::unique_lock& locked, time_point due);
  bool stopping() const { return stopping_; }
  // In a forked child: the thread and its sleep stayed with the parent.
  void forget();

  // Without the mutex, at the end of the process.
  void stop();

 private:
  const char* const name_;
  base::mutex& guard_;
  const std::function<void()> serve_;
  thread thread_;
  parker* sleeper_ = nullptr;  // the thread's
  bool running_ = false;
  bool stopping_ = false;
};

}  // namespace larder::os

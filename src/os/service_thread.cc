// SPDX-License-Identifier: Apache-2.0
#include "os/service_thread.h"

#include <utility>

namespace larder::os {

service_thread::service_thread(const char* name, base::mutex& guard, std::function<void()> serve)
    : name_(name), guard_(guard), serve_(std::move(serve)) {}

bool service_thread::wake() {
  if (stopping_) return true;
  if (!running_) {
    result<thread> started = thread::start(name_, serve_);
    if (!started) return false;
    thread_ = *std::move(started);
    running_ = true;
  }
  interrupt();
  return true;
}

void service_thread::interrupt() {
  if (sleeper_ != nullptr) sleeper_->unpark();
}

void service_thread::sleep_until(base::unique_lock& locked, time_point due) {
  if (stopping_) return;  // that came while the caller had the mutex dropped
  sleeper_ = &parker::current();
  locked.unlock();
  sleeper_->park_until(due);
  locked.lock();
}

void service_thread::forget() {
  thread_.abandon();
  running_ = false;
  sleeper_ = nullptr;
}

void service_thread::stop() {
  {
    const base::lock locked(guard_);
    stopping_ = true;
    if (!running_) return;
    if (thread_.is_current()) return thread_.abandon();  // it ends the process itself
    interrupt();
  }
  thread_.join();
}

}  // namespace larder::os

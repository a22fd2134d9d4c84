// SPDX-License-Identifier: Apache-2.0
//
// The object caches' keeper without a thread, and what takes the place of src/os/thread.cc for it.
#include "tests/sched/keeper.h"

#include <cerrno>
#include <utility>
#include <vector>

#include "cache/keeper.h"
#include "os/thread.h"

namespace larder {
namespace sched {
namespace {

bool renewed = false;

}  // namespace

void renew_keeper() { renewed = true; }

}  // namespace sched

namespace cache {

// Those before are never destroyed: a schedule that failed left them as they stood.
keeper& keeper::of_process() {
  static auto& all = *new std::vector<keeper*>;
  if (std::exchange(sched::renewed, false) || all.empty()) all.push_back(new keeper);
  return *all.back();
}

}  // namespace cache

namespace os {

// The system has no room for a thread, so the keeper never has its own.
result<thread> thread::start(const char*, std::function<void()>, bytes) { return error_from(EAGAIN); }
thread::thread(thread&& other) noexcept : handle_(std::exchange(other.handle_, 0)) {}
thread& thread::operator=(thread&& other) noexcept {
  handle_ = std::exchange(other.handle_, 0);
  return *this;
}
thread::~thread() = default;
void thread::join() {}
bool thread::is_current() const { return false; }
std::uint32_t thread_id() { return 0; }

}  // namespace os
}  // namespace larder

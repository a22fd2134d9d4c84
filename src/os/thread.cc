// SPDX-License-Identifier: Apache-2.0
#include "os/thread.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "os/fault.h"

namespace larder::os {
namespace {

struct start_block {
  std::string name;
  std::function<void()> body;
};

void* run(void* argument) {
  const std::unique_ptr<start_block> block(static_cast<start_block*>(argument));
  ::pthread_setname_np(::pthread_self(), block->name.substr(0, 15).c_str());
  block->body();
  return nullptr;
}

}  // namespace

thread::thread(thread&& other) noexcept : handle_(std::exchange(other.handle_, 0)) {}

thread& thread::operator=(thread&& other) noexcept {
  LARDER_CHECK(!joinable(), "a running thread is assigned over");
  handle_ = std::exchange(other.handle_, 0);
  return *this;
}

thread::~thread() { LARDER_CHECK(!joinable(), "a running thread is destroyed without a join"); }

result<thread> thread::start(const char* name, std::function<void()> body, bytes stack_size) {
  if (fault::fires(call::thread_create)) return error_from(errno);
  auto block = std::make_unique<start_block>(start_block{name, std::move(body)});
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  if (stack_size.count != 0) ::pthread_attr_setstacksize(&attributes, stack_size.count);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  // A fault of the thread's own must reach its handler.
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) ::sigdelset(&all, own);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits the mask
  pthread_t handle{};
  const int error_number = ::pthread_create(&handle, &attributes, run, block.get());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (error_number != 0) return error_from(error_number);
  static_cast<void>(block.release());  // the thread's now
  thread started;
  started.handle_ = handle;
  return started;
}

void thread::join() {
  LARDER_CHECK(joinable(), "join of a thread that does not run");
  const int error_number = ::pthread_join(handle_, nullptr);
  LARDER_CHECK(error_number == 0, "pthread_join failed with error %d", error_number);
  handle_ = 0;
}

bool thread::is_current() const { return joinable() && ::pthread_equal(handle_, ::pthread_self()) != 0; }

std::uint32_t thread_id() { return static_cast<std::uint32_t>(::gettid()); }

}  // namespace larder::os

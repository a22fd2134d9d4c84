// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include <larder/memory_budget.h>
#include <larder/object_cache.h>
#include <larder/runtime.h>

struct request {
  char buffer[4096] = {};  // expensive to make, so it is made once
};

int main() {
  using namespace larder::literals;
  larder::memory_budget budget{"example", {.limit = 4_MiB}};  // everything below lives within it
  larder::object_cache<request> requests{"requests", {.reservation = 64, .limit = 1000, .budget = &budget}};
  auto runtime = larder::runtime::create("workers", {.workers = 2, .stack_size = 32_KiB, .budget = &budget});
  if (!runtime) {
    std::fprintf(stderr, "no runtime: %s\n", runtime.error().message().c_str());
    return 1;
  }
  for (int i = 0; i < 100'000; ++i) {
    (*runtime)->spawn_detached([&requests] {  // a task on a cached stack; waits here when memory is short
      auto mine = requests.acquire();         // built already; goes back by itself
      mine->buffer[0] = 'x';
      larder::this_task::yield();
    });
  }
  runtime->reset();  // waits for all tasks
  std::printf("100000 tasks, for which %llu requests were built; memory: %llu KiB at most, of %llu KiB\n",
              static_cast<unsigned long long>(requests.stats().constructed),
              static_cast<unsigned long long>(budget.peak() / 1_KiB),
              static_cast<unsigned long long>(budget.limit() / 1_KiB));
}

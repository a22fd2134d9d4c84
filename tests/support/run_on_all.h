// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <thread>
#include <vector>

#include <larder/runtime.h>

#include "base/sanitizers.h"

namespace larder::tests {

// What a test's work is divided by under a sanitizer.
#if defined(LARDER_THREAD_SANITIZER) || defined(LARDER_ADDRESS_SANITIZER)
inline constexpr int share = 5;
#else
inline constexpr int share = 1;
#endif

// Starts `tasks` tasks and `threads` threads that all run `body` with a number of their own, and waits for them.
template <typename Body>
void run_on_all(runtime& where, int tasks, int threads, Body body) {
  std::vector<task> started;
  std::vector<std::thread> plain;
  for (int i = 0; i < tasks; ++i) started.push_back(where.spawn([&body, i] { body(i); }));
  for (int i = 0; i < threads; ++i) plain.emplace_back([&body, i, tasks] { body(tasks + i); });
  for (task& each : started) each.join();
  for (std::thread& each : plain) each.join();
}

}  // namespace larder::tests

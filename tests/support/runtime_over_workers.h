// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <larder/runtime.h>

namespace larder::tests {

// A runtime with a budget of its own, over 1, 2 and 4 workers. After each test all of its tasks have ended and all of
// its memory is back, or the test fails.
class runtime_over_workers : public testing::TestWithParam<unsigned> {
 protected:
  runtime_over_workers() { start({}); }
  ~runtime_over_workers() override {
    runtime_.reset();
    EXPECT_EQ(budget_.used(), bytes{0});
  }

  // A new runtime in the place of the first; the number of workers and the budget are the fixture's.
  void start(runtime::options chosen) {
    runtime_.reset();
    chosen.workers = GetParam();
    chosen.budget = &budget_;
    auto made = runtime::create("tested", chosen);
    if (!made) FAIL() << "runtime::create: " << made.error().message();
    runtime_ = std::move(*made);
  }

  // Runs `body` as a task that stays on worker 0. Tasks that are placed there too take turns with it.
  template <typename Body>
  void on_worker_0(Body body) {
    runtime_->spawn_on(0, std::move(body)).join();
  }

  memory_budget budget_{"tested"};
  std::unique_ptr<runtime> runtime_;
};

inline std::string name_of_workers(const testing::TestParamInfo<unsigned>& workers) {
  return std::to_string(workers.param) + (workers.param == 1 ? "Worker" : "Workers");
}

}  // namespace larder::tests

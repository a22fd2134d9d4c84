// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <larder/task_report.h>

#include "os/parker.h"
#include "task/worker.h"

namespace larder::task_layer {

// All tasks of the process as they are while it is made, for one runtime's report.
class task_survey {
 public:
  // Throws std::bad_alloc, like all else here. `runtime_name` lives as long.
  task_survey(const shared_state& of, std::string_view runtime_name);

  void for_each(const std::function<void(const task_state&)>& show) const;
  std::string report(std::size_t tasks_max) const;

 private:
  static constexpr std::size_t nobody = ~std::size_t{0};

  // A task, or a thread that has what somebody waits for.
  struct member {
    os::parker* parker;
    bool ours;  // a task of the runtime
    std::string name{};
    unsigned worker = 0;
    task_state::activity now = task_state::activity::ready;
    bool noted = false;  // the next three are what it waits for
    os::wait_contents wait{};
    os::wait_note::version version = 0;
    os::wait_subject subject{};
    std::size_t holder = nobody;  // whom it waits for
    bool deadlocked = false;
  };

  void collect_tasks(const shared_state& of);
  void find_holders();
  void find_circles();
  void read_names();
  // Whether it is; then its members are as they were in it.
  bool is_deadlock(const std::vector<std::size_t>& circle);
  task_state state_of(const member& one) const;
  std::string name_of(const member& one) const;
  std::string text_of_circle(const std::vector<std::size_t>& circle) const;
  std::string text_of_wait(const task_state& one) const;

  const std::string_view runtime_name_;
  time_point made_at_;
  std::vector<member> members_;
  std::unordered_map<const os::parker*, std::size_t> numbers_;
  std::vector<std::vector<std::size_t>> deadlocks_;  // each waits for the next, the last for the first
};

}  // namespace larder::task_layer

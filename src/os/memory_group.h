// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <larder/result.h>
#include <larder/units.h>

#include "os/file.h"

namespace larder::os {

// The files in which the system describes a process's control group.
struct group_files {
  std::string groups = "/proc/self/cgroup";
  std::string mounts = "/proc/self/mountinfo";
  std::string pressure = "/proc/pressure/memory";  // where the group has no file of its own
};

// The memory that the system lets the process's control group have (version 1 or 2 of them), and how short it is.
class memory_group {
 public:
  explicit memory_group(const group_files& from = {});
  // From what the first two files hold.
  memory_group(std::string_view groups, std::string_view mounts, std::string pressure);

  // The lowest limit of the group and those above it, as it is now; `unlimited` where there is none. Nothing where one
  // cannot be read for now (no descriptor is left).
  std::optional<bytes> limit() const;

  // A descriptor that is exceptional (event_urgent) each time that, within a window of two seconds, some task of the
  // group has stood still for `stall` for want of memory: the kernel's pressure stall information. Where the group has
  // no such file it is that of the whole system. errno's errors where there is none, or it may not be written.
  result<descriptor> watch_pressure(std::chrono::microseconds stall) const;

  // False if some of the system's files were there and could not be read.
  bool is_complete() const { return complete_; }

  const std::vector<std::string>& limit_files() const { return limit_files_; }
  const std::string& pressure_file() const { return pressure_file_; }

 private:
  memory_group(const std::optional<std::string>& groups, const std::optional<std::string>& mounts,
               const std::string& pressure);
  void add_group(const std::string& mount_point, std::string_view mount_root, std::string_view path,
                 bool first_version);

  std::vector<std::string> limit_files_;  // the group's own first
  std::string pressure_file_;
  bool complete_ = true;
};

}  // namespace larder::os

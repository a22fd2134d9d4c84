// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes of a file of which a tenth fits into memory, by a process of its own in a memory control group, so
// that the kernel's page cache is held to the limit as well. The group's limit holds for everything that the process
// takes; of it Larder's budget is four fifths, which leaves it less for pages than the kernel has.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "bench/page_cache/reads.h"

namespace larder::bench {

// The last is read_uniform by `readers` at once: tasks for Larder, threads for the others.
enum class load : std::uint8_t { read_uniform, read_zipf, mixed_zipf, write_in_order, read_by_many };

constexpr std::uint64_t large_file_pages = 160U << 8;  // 160 MiB
constexpr bytes group_limit{20U << 20};
constexpr bytes pages_limit{16U << 20};
constexpr std::uint64_t steps_of_reading = 1000;
constexpr std::uint64_t readers = 32;
constexpr std::uint64_t steps_of_each_reader = 250;
constexpr std::uint64_t written_mebibytes = 64;
constexpr std::size_t written_at_once = 64U << 10;

// What one step did, and how long it took.
struct outcome {
  std::uint64_t operations = 0;
  double seconds = 0;
};

// The file that all of them use; its pages are in nobody's memory when a run begins.
int large_file();

// A process that takes a step of a load whenever it is told to.
class limited_run {
 public:
  using work_function = std::function<void(load, int commands, int results)>;
  limited_run(const work_function& work, load chosen);
  ~limited_run();
  limited_run(const limited_run&) = delete;
  limited_run& operator=(const limited_run&) = delete;

  bool usable() const { return child_ > 0; }
  const char* reason() const { return "no process can be started"; }
  bool limited() const { return !group_.empty(); }
  outcome step();

 private:
  std::string group_;  // the control group's folder, empty if none can be made
  pid_t child_ = -1;
  int commands_ = -1;
  int results_ = -1;
};

// The ways. Each one's `work` is a process's whole life.
struct larder_direct {
  static void work(load chosen, int commands, int results);
};
struct larder_buffered {
  static void work(load chosen, int commands, int results);
};
struct kernel_cache {
  static void work(load chosen, int commands, int results);
};
struct kernel_mapping {
  static void work(load chosen, int commands, int results);
};
struct device {
  static void work(load chosen, int commands, int results);
};

}  // namespace larder::bench

// SPDX-License-Identifier: Apache-2.0
#include "os/cpu.h"

#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace larder::os {

int current_cpu() {
  const int cpu = ::sched_getcpu();
  return cpu < 0 ? 0 : cpu;
}

namespace {

// The last number of a list such as "0-3,8-11"; the configured count where the file cannot be read.
int read_possible_cpus() {
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::string text;
  if (std::getline(file, text) && !text.empty()) {
    const std::size_t last = text.find_last_of(",-");
    const int number = std::atoi(text.c_str() + (last == std::string::npos ? 0 : last + 1));
    if (number >= 0) return number + 1;
  }
  const long configured = ::sysconf(_SC_NPROCESSORS_CONF);
  return configured > 0 ? static_cast<int>(configured) : 1;
}

}  // namespace

int possible_cpus() {
  static const int count = read_possible_cpus();
  return count;
}

int available_cpus() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? static_cast<int>(online) : 1;
}

}  // namespace larder::os

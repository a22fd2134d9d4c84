// SPDX-License-Identifier: Apache-2.0
#include "os/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

namespace larder::os {

namespace {

unsigned columns_of(int terminal) {
  winsize size{};
  if (::ioctl(terminal, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

bool output_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
unsigned terminal_columns() { return columns_of(STDOUT_FILENO); }
bool error_output_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }
unsigned error_output_columns() { return columns_of(STDERR_FILENO); }

std::string working_directory() {
  const std::unique_ptr<char, decltype(&std::free)> name(::getcwd(nullptr, 0), std::free);
  return name == nullptr ? "." : name.get();
}

}  // namespace larder::os

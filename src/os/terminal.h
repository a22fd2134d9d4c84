// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace larder::os {

// Whether standard output is a terminal, and how many columns it has (80 if it does not say).
bool output_is_terminal();
unsigned terminal_columns();
// The same for standard error.
bool error_output_is_terminal();
unsigned error_output_columns();
// The current directory; "." where it has no name.
std::string working_directory();

}  // namespace larder::os

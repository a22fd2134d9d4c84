// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <exception>
#include <new>

#include "server/options.h"
#include "server/serve.h"

int main(int count, char** words) {
  try {
    const auto chosen = larder::server::read_command_line(count, words);
    return chosen ? larder::server::serve(*chosen) : 0;
  } catch (const std::bad_alloc&) {
    std::fputs("larder: the system has no memory left to start with; stop something else, or give less with --memory\n",
               stderr);
    return 2;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "larder: %s\n", problem.what());
    return 2;
  }
}

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <exception>
#include <new>
#include <variant>

#include "server/options.h"
#include "server/replay/replay.h"
#include "server/serve.h"

int main(int count, char** words) {
  try {
    const auto chosen = larder::server::read_command_line(count, words);
    if (!chosen) return 0;
    if (const auto* replay = std::get_if<larder::server::replay::replay_options>(&*chosen)) {
      return larder::server::replay::replay(*replay);
    }
    return larder::server::serve(std::get<larder::server::serve_options>(*chosen));
  } catch (const std::bad_alloc&) {
    std::fputs("larder: the system has no memory left to start with; stop something else, or give less with --memory\n",
               stderr);
    return 2;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "larder: %s\n", problem.what());
    return 2;
  }
}

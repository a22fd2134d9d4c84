// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/options.h"

namespace larder::server {

// Serves until SIGINT or SIGTERM. Returns the process's exit code: 0, or 1 if something that a client wrote could not
// be brought to its disk at the end. Throws bad_start before anything is left behind.
int serve(const serve_options& chosen);

}  // namespace larder::server

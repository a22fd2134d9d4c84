// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace larder::bench {

// The benchmark's program in the process of a peer: measures what it is asked for; returns the exit status.
// `library` is the file that malloc must be of, empty for a peer that is no malloc.
int serve_peer(const std::string& peer, const std::string& library);

}  // namespace larder::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>

#include <larder/export.h>
#include <larder/result.h>

namespace larder {

// The keeper is a thread of the library's own, one a process, that keeps constructors, destructors and system calls off
// its users' paths: it moves what an idle CPU or the depot holds to the slabs, and destroys the empty slabs that nobody
// needed for a period. A cache that nobody uses is back at its reservation within two periods, its memory with the
// system; then the keeper sleeps until some cache is used again. It starts with the first use of any cache, is started
// anew in a forked child, blocks all signals, and is joined at exit.
//
// Destructors of cached objects run on it, with no lock held.
struct keeper_options {
  // From one round to the next; 1 ms to 1 h.
  std::chrono::nanoseconds period = std::chrono::seconds(1);
  // How many objects a round moves or destroys at most, in each cache; from 1. A round that did not get through goes on
  // a period later.
  std::size_t objects_per_round = std::size_t{4} << 20;
};

// Takes effect at once. EINVAL if an option is out of its range; then nothing is changed. Any thread.
LARDER_API result<void> configure_keeper(const keeper_options& chosen);
LARDER_API keeper_options keeper_configuration();

}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::coro {

// At a thread's first resume: gives it what a report of an overflow needs, where reports were asked for.
void prepare_thread_for_overflow();

}  // namespace larder::coro

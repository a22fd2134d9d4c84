// SPDX-License-Identifier: Apache-2.0
//
// What takes the place of src/coro/overflow.cc.
#include "coro/overflow.h"

namespace larder::coro {

void prepare_thread_for_overflow() {}

}  // namespace larder::coro

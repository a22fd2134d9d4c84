// SPDX-License-Identifier: Apache-2.0
#include <system_error>

#include <larder/blocking.h>

#include "task/worker.h"

namespace larder::task_layer {

void call_on_helper(void (*run)(void*), void* argument) {
  worker* here = worker::current();
  if (here == nullptr) {
    run(argument);
    return;
  }
  if (const auto made = here->helpers().call(run, argument); !made) {
    throw std::system_error(made.error(), "larder::blocking: no thread for the call");
  }
}

}  // namespace larder::task_layer

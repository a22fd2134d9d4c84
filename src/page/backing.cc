// SPDX-License-Identifier: Apache-2.0
#include <larder/backing.h>

namespace larder {

void backing::write_many(std::span<backing_write> writes) {
  for (backing_write& each : writes) each.outcome = write(each.from, each.offset);
}

}  // namespace larder

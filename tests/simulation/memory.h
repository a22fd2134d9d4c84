// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::simulation {

// From now on what is mapped is a new story's.
void renew_memory();

}  // namespace larder::simulation

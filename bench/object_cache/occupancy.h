// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace larder::bench {

// Registers random_lifetimes<order of slabs>/size (occupancy.cc).
void register_occupancy();

}  // namespace larder::bench

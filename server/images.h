// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/options.h"
#include "server/service.h"

namespace larder::server {

inline constexpr bytes demonstration_size{1U << 30};
inline constexpr const char* demonstration_name = "demonstration";

// Opens each image. Throws bad_start for the first that cannot be served, saying why and what to do.
std::vector<disk> open_images(const std::vector<serve_options::image>& images);

// A sparse disk without a name in the file system, gone when it is closed.
disk make_demonstration_disk();

}  // namespace larder::server

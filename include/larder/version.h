// SPDX-License-Identifier: Apache-2.0
#pragma once

// The version's one home: the build reads it here. Before 1.0, a new minor version may break source and binary.
#define LARDER_VERSION_MAJOR 0
#define LARDER_VERSION_MINOR 1
#define LARDER_VERSION_PATCH 0

#define LARDER_STRING_OF(x) #x
#define LARDER_VERSION_TEXT(major, minor, patch) \
  LARDER_STRING_OF(major) "." LARDER_STRING_OF(minor) "." LARDER_STRING_OF(patch)
#define LARDER_VERSION_STRING LARDER_VERSION_TEXT(LARDER_VERSION_MAJOR, LARDER_VERSION_MINOR, LARDER_VERSION_PATCH)

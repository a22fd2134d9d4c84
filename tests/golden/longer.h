// SPDX-License-Identifier: Apache-2.0
//
// With LARDER_GOLDEN_LONGER each counted path is one instruction longer, which must be noticed.
#pragma once

#ifdef LARDER_GOLDEN_LONGER
#define LARDER_GOLDEN_EXTRA asm volatile("nop")
#else
#define LARDER_GOLDEN_EXTRA static_cast<void>(0)
#endif

// SPDX-License-Identifier: Apache-2.0
#pragma once

// LARDER_ADDRESS_SANITIZER and LARDER_THREAD_SANITIZER, whichever the compiler.
#if defined(__SANITIZE_ADDRESS__)
#define LARDER_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LARDER_ADDRESS_SANITIZER 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define LARDER_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LARDER_THREAD_SANITIZER 1
#endif
#endif

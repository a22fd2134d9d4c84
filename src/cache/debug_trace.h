// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace larder::cache {

// Who did something: a thread and its stack. Plain data, to lie beside the objects.
struct debug_trace {
  static constexpr std::uint32_t depth_max = 16;

  std::uint32_t thread = 0;  // 0: nobody
  std::uint32_t depth = 0;
  void* frames[depth_max] = {};

  // The caller's caller and those above it. Takes no memory and no lock of the C library.
  [[gnu::noinline]] static debug_trace here();
};

// function+0x12 (module), or module+0x1234
std::string describe_frame(void* return_address);
// "\n  <what> by thread 12:\n    frame…"; empty if nobody did.
std::string describe_trace(const char* what, const debug_trace& trace);

}  // namespace larder::cache

// SPDX-License-Identifier: Apache-2.0
//
// Any sequence of operations, misuse included, keeps the laws of handle_model_test.h. The first byte chooses the limit
// and how much memory there is.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "handle/handle_model_test.h"

namespace {

using larder::handle_layer::handle_model;

constexpr std::array<std::size_t, 8> limits{1, 2, 3, 255, 256, 257, 1000, 20'000};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  handle_model model({.limit = limits[data[0] % limits.size()], .frames_max = data[0] / limits.size() % 3U});
  const std::string broken = model.play(std::span(data, size).subspan(1));
  LARDER_CHECK(broken.empty(), "%s", broken.c_str());
  return 0;
}

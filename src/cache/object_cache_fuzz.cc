// SPDX-License-Identifier: Apache-2.0
//
// Any sequence of operations keeps the laws of cache_model_test.h. The first bytes choose the cache: size, alignment,
// reservation, limit, how many objects the budget has room for, and the debug checks.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "cache/cache_model_test.h"

namespace {

using larder::cache::cache_model;

constexpr std::size_t head_length = 6;
// Slabs of many objects, of some, of one; and around a page.
constexpr std::array<std::size_t, 12> sizes{1, 8, 24, 64, 520, 1000, 4000, 4064, 4072, 4097, 20'480, 65'536};

cache_model::options options_of(std::span<const std::uint8_t, head_length> head) {
  cache_model::options made;
  made.size = sizes[head[0] % sizes.size()];
  made.alignment = std::size_t{1} << head[1] % 13U;
  made.reservation = head[2] % 32U;
  if (head[3] != 0) made.limit = made.reservation + head[3];
  if (head[4] != 0) made.memory = larder::round_up_to_pages(larder::bytes{made.size * head[4]}) + larder::bytes{32'768};
  made.checks = static_cast<larder::debug_checks>(head[5] & static_cast<unsigned>(larder::debug_checks::all));
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < head_length) return 0;
  const std::span input(data, size);
  cache_model model(options_of(input.first<head_length>()));
  const std::string broken = model.play(input.subspan(head_length));
  LARDER_CHECK(broken.empty(), "%s", broken.c_str());
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// What fast_path_test.py counts of the page cache: hits, as the library has them, with all that is in them inlined into
// one function. What is not there, a miss, a first mark, a waiter to be told, is in other files and jumped over.
#include <cstdint>
#include <cstring>

#include "longer.h"
#include "page/cached_file.cc"
#include "page/optimistic_read.cc"
#include "page/page_ref.cc"

namespace {
constexpr std::size_t length = 64;
}

extern "C" {

[[gnu::flatten]] void page_pin_read_unpin(larder::cached_file& file, std::uint64_t number,
                                          larder::pin_admission& admission, std::byte* into) {
  LARDER_GOLDEN_EXTRA;
  const larder::page_ref page = file.try_pin(number, admission);
  if (page) [[likely]]
    std::memcpy(into, page.data().data(), length);
}
[[gnu::flatten]] bool page_try_read(larder::cached_file& file, std::uint64_t offset, std::byte* into) {
  LARDER_GOLDEN_EXTRA;
  return file.try_read(offset, std::span(into, length));
}
}

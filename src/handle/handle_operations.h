// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace larder::handle_layer {

// Operations on a handle table as any bytes tell them: the fuzzer's and the model test's one language.
//
// An operation is a byte that says what is done (three bits), with what kind of handle (three), and how often (two);
// then comes its argument, least byte first: of four bytes for a forged handle, else of two. Bytes that are missing at
// the end are 0.

enum class action : std::uint8_t { insert, erase, take, find, find_pinned, unpin, for_each, shrink };

enum class handle_kind : std::uint8_t {
  live,
  stale,        // erased, at any time
  last_erased,  // so that erasing it is erasing twice
  forged,       // the argument itself
  foreign,      // of another table
};

struct operation {
  action what;
  handle_kind with;
  unsigned times;          // of insert, erase and take, with other handles each time
  std::uint32_t argument;  // chooses among the handles of the kind
};

class operation_reader {
 public:
  explicit operation_reader(std::span<const std::uint8_t> input) : input_(input) {}

  std::optional<operation> next() {
    if (input_.empty()) return std::nullopt;
    // Half of the handles are good ones.
    constexpr std::array kinds{handle_kind::live,  handle_kind::live,        handle_kind::live,   handle_kind::live,
                               handle_kind::stale, handle_kind::last_erased, handle_kind::forged, handle_kind::foreign};
    const std::uint8_t head = next_byte();
    operation made{static_cast<action>(head & 7), kinds[head >> 3 & 7], 1U << (head >> 6) * 3, 0};
    const unsigned argument_bits = made.with == handle_kind::forged ? 32 : 16;
    for (unsigned shift = 0; shift < argument_bits; shift += 8) made.argument |= std::uint32_t{next_byte()} << shift;
    return made;
  }

  std::uint8_t next_byte() {
    if (input_.empty()) return 0;
    const std::uint8_t first = input_.front();
    input_ = input_.subspan(1);
    return first;
  }

 private:
  std::span<const std::uint8_t> input_;
};

}  // namespace larder::handle_layer

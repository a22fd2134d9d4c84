// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/nbd/protocol.h"

namespace larder::nbd {

// What a client sees of an export.
struct export_view {
  std::string name;
  std::uint64_t size = 0;
  bool read_only = false;

  std::uint16_t flags() const;
};

// The server's half of the fixed newstyle handshake, as a machine that eats bytes and says bytes: it holds no socket,
// no buffer and no memory of its own, so an idle client costs what stands here, and a fuzzer can drive it.
class handshake {
 public:
  enum class state : std::uint8_t { client_flags, option_header, skipping, transmission, closing };

  // Where replies go: bytes to be sent in order. False when they cannot be sent, and then the handshake closes.
  class output {
   public:
    virtual bool say(std::span<const std::byte> bytes) = 0;

   protected:
    ~output() = default;
  };

  // The longest run of bytes that `feed` may ask to see at once: an option's header, and the part of its data that can
  // matter (a name's length, the longest name that can exist, a count).
  static constexpr std::size_t option_data_kept = 4 + name_most + 2;
  static constexpr std::size_t longest_message = option_header_size + option_data_kept;

  // The greeting, which the server says first.
  static bool greet(output& out);

  // Eats what it can of `input` and returns how much; the rest is the start of a message that is not whole, and must be
  // seen again with more behind it. Ends with `transmission` (the rest of the input is requests) or `closing`.
  std::size_t feed(std::span<const std::byte> input, std::span<const export_view> exports, output& out);

  state now() const { return state_; }
  // Of the export that the client chose, once in transmission.
  std::size_t chosen_export() const { return chosen_; }

 private:
  std::size_t eat_message(std::span<const std::byte> input, std::span<const export_view> exports, output& out);
  void answer(option asked, std::span<const std::byte> data, std::span<const export_view> exports, output& out);
  void answer_export_name(std::span<const std::byte> data, std::span<const export_view> exports, output& out);
  void answer_list(std::span<const export_view> exports, output& out);
  void answer_info(option asked, std::span<const std::byte> data, std::span<const export_view> exports, output& out);
  void reply(output& out, option asked, std::uint32_t type, std::span<const std::byte> data = {});

  state state_ = state::client_flags;
  state after_skip_ = state::option_header;
  bool no_zeroes_ = false;
  std::uint16_t chosen_ = 0;
  std::uint32_t option_length_ = 0;  // of the data of the option under way
  std::uint32_t to_skip_ = 0;        // of that data, what is left to throw away
};

}  // namespace larder::nbd

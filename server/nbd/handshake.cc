// SPDX-License-Identifier: Apache-2.0
//
// Each message is an option: a header, and data whose length the client chooses. Only the start of the data can matter
// (handshake::option_data_kept); the rest is counted and thrown away, however long, without a buffer. A reply that
// cannot be sent at once ends the connection: a client that asks without reading answers has no claim to memory.
#include "server/nbd/handshake.h"

#include <algorithm>
#include <array>

namespace larder::nbd {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string_view text_of(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

// The default export answers to the empty name too. SIZE_MAX if there is none of that name.
std::size_t find_export(std::span<const export_view> exports, std::string_view name) {
  if (name.empty() && !exports.empty()) return 0;
  const auto found = std::find_if(exports.begin(), exports.end(), [&](const auto& each) { return each.name == name; });
  return found == exports.end() ? SIZE_MAX : static_cast<std::size_t>(found - exports.begin());
}

}  // namespace

std::uint16_t export_view::flags() const {
  std::uint16_t all = has_flags | can_flush | can_fua | can_multi_connection;
  all |= read_only ? is_read_only : static_cast<std::uint16_t>(can_trim | can_write_zeroes);
  return all;
}

bool handshake::greet(output& out) {
  std::array<std::byte, greeting_size> greeting;
  std::byte* at = store_big_endian(greeting.data(), greeting_magic);
  at = store_big_endian(at, option_magic);
  store_big_endian(at, static_cast<std::uint16_t>(flag_fixed_newstyle | flag_no_zeroes));
  return out.say(greeting);
}

std::size_t handshake::feed(std::span<const std::byte> input, std::span<const export_view> exports, output& out) {
  std::size_t eaten = 0;
  while (state_ != state::transmission && state_ != state::closing) {
    const std::size_t step = eat_message(input.subspan(eaten), exports, out);
    if (step == 0) break;
    eaten += step;
  }
  return eaten;
}

std::size_t handshake::eat_message(std::span<const std::byte> input, std::span<const export_view> exports,
                                   output& out) {
  if (state_ == state::skipping) {
    const std::size_t step = std::min<std::size_t>(input.size(), to_skip_);
    to_skip_ -= static_cast<std::uint32_t>(step);
    if (to_skip_ == 0) state_ = after_skip_;
    return step;
  }
  if (state_ == state::client_flags) {
    if (input.size() < 4) return 0;
    const auto flags = load_big_endian<std::uint32_t>(input.data());
    no_zeroes_ = (flags & flag_no_zeroes) != 0;
    const bool known = (flags & ~std::uint32_t{flag_fixed_newstyle | flag_no_zeroes}) == 0;
    state_ = known ? state::option_header : state::closing;
    return 4;
  }
  if (input.size() < option_header_size) return 0;
  if (load_big_endian<std::uint64_t>(input.data()) != option_magic) {
    state_ = state::closing;
    return option_header_size;
  }
  const auto asked = static_cast<option>(load_big_endian<std::uint32_t>(input.data() + 8));
  option_length_ = load_big_endian<std::uint32_t>(input.data() + 12);
  const std::size_t kept = std::min<std::size_t>(option_length_, option_data_kept);
  if (input.size() < option_header_size + kept) return 0;
  to_skip_ = option_length_ - static_cast<std::uint32_t>(kept);
  answer(asked, input.subspan(option_header_size, kept), exports, out);
  if (to_skip_ != 0 && state_ != state::closing) {
    after_skip_ = state_;
    state_ = state::skipping;
  }
  return option_header_size + kept;
}

void handshake::answer(option asked, std::span<const std::byte> data, std::span<const export_view> exports,
                       output& out) {
  switch (asked) {
    case option::export_name:
      return answer_export_name(data, exports, out);
    case option::abort:
      reply(out, asked, reply_ack);
      state_ = state::closing;
      return;
    case option::list:
      if (option_length_ != 0) return reply(out, asked, reply_error_invalid, bytes_of("LIST takes no data"));
      return answer_list(exports, out);
    case option::info:
    case option::go:
      return answer_info(asked, data, exports, out);
  }
  reply(out, asked, reply_error_unsupported);
}

// The old way in has no way to say no but to hang up.
void handshake::answer_export_name(std::span<const std::byte> data, std::span<const export_view> exports, output& out) {
  const std::size_t found = option_length_ > name_most ? SIZE_MAX : find_export(exports, text_of(data));
  if (found == SIZE_MAX) {
    state_ = state::closing;
    return;
  }
  std::array<std::byte, 10 + 124> answer{};
  std::byte* at = store_big_endian(answer.data(), exports[found].size);
  store_big_endian(at, exports[found].flags());
  chosen_ = static_cast<std::uint16_t>(found);
  const std::size_t length = no_zeroes_ ? 10 : answer.size();
  state_ = out.say(std::span(answer).first(length)) ? state::transmission : state::closing;
}

void handshake::answer_list(std::span<const export_view> exports, output& out) {
  for (const export_view& each : exports) {
    std::array<std::byte, 4 + name_most> entry;
    store_big_endian(entry.data(), static_cast<std::uint32_t>(each.name.size()));
    std::memcpy(entry.data() + 4, each.name.data(), each.name.size());
    reply(out, option::list, reply_server, std::span(entry).first(4 + each.name.size()));
  }
  reply(out, option::list, reply_ack);
}

// Data: the name's length, the name, a count, and so many 16-bit numbers of what the client would like to be told. It
// is told all that there is in any case.
void handshake::answer_info(option asked, std::span<const std::byte> data, std::span<const export_view> exports,
                            output& out) {
  if (option_length_ < 6) return reply(out, asked, reply_error_invalid, bytes_of("too short"));
  const auto name_length = load_big_endian<std::uint32_t>(data.data());
  if (name_length > option_length_ - 6) {
    return reply(out, asked, reply_error_invalid, bytes_of("the name is longer than the option"));
  }
  if (name_length > name_most) return reply(out, asked, reply_error_unknown, bytes_of("no export has so long a name"));
  const auto count = load_big_endian<std::uint16_t>(data.data() + 4 + name_length);
  if (option_length_ != 6 + name_length + 2U * count) {
    return reply(out, asked, reply_error_invalid, bytes_of("the length does not fit the count of requests"));
  }
  const std::size_t found = find_export(exports, text_of(data.subspan(4, name_length)));
  if (found == SIZE_MAX) return reply(out, asked, reply_error_unknown, bytes_of("there is no export of that name"));

  std::array<std::byte, 12> facts;
  std::byte* at = store_big_endian(facts.data(), info_export);
  at = store_big_endian(at, exports[found].size);
  store_big_endian(at, exports[found].flags());
  reply(out, asked, reply_info, facts);

  std::array<std::byte, 14> blocks;
  at = store_big_endian(blocks.data(), info_block_size);
  at = store_big_endian(at, std::uint32_t{1});     // any byte range will do,
  at = store_big_endian(at, std::uint32_t{4096});  // whole pages are best
  store_big_endian(at, payload_most);
  reply(out, asked, reply_info, blocks);

  reply(out, asked, reply_ack);
  if (asked == option::go && state_ != state::closing) {
    chosen_ = static_cast<std::uint16_t>(found);
    state_ = state::transmission;
  }
}

void handshake::reply(output& out, option asked, std::uint32_t type, std::span<const std::byte> data) {
  if (state_ == state::closing) return;
  std::array<std::byte, option_reply_header_size + 4 + name_most> message;
  std::byte* at = store_big_endian(message.data(), option_reply_magic);
  at = store_big_endian(at, static_cast<std::uint32_t>(asked));
  at = store_big_endian(at, type);
  at = store_big_endian(at, static_cast<std::uint32_t>(data.size()));
  std::copy(data.begin(), data.end(), at);
  if (!out.say(std::span(message).first(option_reply_header_size + data.size()))) state_ = state::closing;
}

}  // namespace larder::nbd

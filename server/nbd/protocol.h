// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

// The numbers of the NBD protocol (the project's doc/proto.md), and its big-endian integers.
namespace larder::nbd {

inline constexpr std::uint64_t greeting_magic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;

// Handshake flags: the server's and the client's.
inline constexpr std::uint16_t flag_fixed_newstyle = 1U << 0;
inline constexpr std::uint16_t flag_no_zeroes = 1U << 1;

enum class option : std::uint32_t { export_name = 1, abort = 2, list = 3, info = 6, go = 7 };

inline constexpr std::uint32_t reply_ack = 1;
inline constexpr std::uint32_t reply_server = 2;
inline constexpr std::uint32_t reply_info = 3;
inline constexpr std::uint32_t reply_error_unsupported = (1U << 31) + 1;
inline constexpr std::uint32_t reply_error_invalid = (1U << 31) + 3;
inline constexpr std::uint32_t reply_error_unknown = (1U << 31) + 6;

inline constexpr std::uint16_t info_export = 0;
inline constexpr std::uint16_t info_block_size = 3;

// Transmission flags: what an export can do.
inline constexpr std::uint16_t has_flags = 1U << 0;
inline constexpr std::uint16_t is_read_only = 1U << 1;
inline constexpr std::uint16_t can_flush = 1U << 2;
inline constexpr std::uint16_t can_fua = 1U << 3;
inline constexpr std::uint16_t can_trim = 1U << 5;
inline constexpr std::uint16_t can_write_zeroes = 1U << 6;
inline constexpr std::uint16_t can_multi_connection = 1U << 8;

enum class command : std::uint16_t { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, write_zeroes = 6 };

inline constexpr std::uint16_t command_flag_fua = 1U << 0;
inline constexpr std::uint16_t command_flag_no_hole = 1U << 1;

// Errors of a reply.
enum class error : std::uint32_t {
  none = 0,
  not_permitted = 1,
  input_output = 5,
  no_memory = 12,
  invalid = 22,
  no_space = 28,
  unsupported = 95,
  shutting_down = 108,
};

inline constexpr std::uint32_t payload_most = 32U << 20;  // of one READ or WRITE; also what is advertised
inline constexpr std::uint32_t name_most = 255;           // of an export here; the protocol allows 4096

inline constexpr std::size_t greeting_size = 18;
inline constexpr std::size_t option_header_size = 16;
inline constexpr std::size_t option_reply_header_size = 20;
inline constexpr std::size_t request_size = 28;
inline constexpr std::size_t simple_reply_size = 16;

template <typename Integer>
Integer load_big_endian(const std::byte* from) {
  static_assert(std::endian::native == std::endian::little);
  Integer value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (sizeof value == 2) return __builtin_bswap16(value);
  if constexpr (sizeof value == 4) return __builtin_bswap32(value);
  if constexpr (sizeof value == 8) return __builtin_bswap64(value);
}

template <typename Integer>
std::byte* store_big_endian(std::byte* to, Integer value) {
  if constexpr (sizeof value == 2) value = __builtin_bswap16(value);
  if constexpr (sizeof value == 4) value = __builtin_bswap32(value);
  if constexpr (sizeof value == 8) value = __builtin_bswap64(value);
  std::memcpy(to, &value, sizeof value);
  return to + sizeof value;
}

// A request as it stands on the wire.
struct request_header {
  std::uint32_t magic;
  std::uint16_t flags;
  std::uint16_t type;
  std::uint64_t cookie;
  std::uint64_t offset;
  std::uint32_t length;
};

inline request_header parse_request(const std::byte* from) {
  return {load_big_endian<std::uint32_t>(from),      load_big_endian<std::uint16_t>(from + 4),
          load_big_endian<std::uint16_t>(from + 6),  load_big_endian<std::uint64_t>(from + 8),
          load_big_endian<std::uint64_t>(from + 16), load_big_endian<std::uint32_t>(from + 24)};
}

inline void store_simple_reply(std::byte* to, error code, std::uint64_t cookie) {
  to = store_big_endian(to, simple_reply_magic);
  to = store_big_endian(to, static_cast<std::uint32_t>(code));
  store_big_endian(to, cookie);
}

}  // namespace larder::nbd

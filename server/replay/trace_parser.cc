// SPDX-License-Identifier: Apache-2.0
//
// Traces come from many tools, so columns are found by their names, in any order, with others between them. What cannot
// be understood is refused where it stands rather than guessed: a replay of half a trace looks like one of the whole.
#include "server/replay/trace_parser.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include <fmt/format.h>

#include "server/service.h"

namespace larder::server::replay {
namespace {

constexpr std::uint64_t sector_size = 512;
constexpr std::size_t shown_most = 40;  // of a field, in a message

char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter; }

bool is_blank(char letter) { return letter == ' ' || letter == '\t' || letter == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool same_word(std::string_view text, std::string_view word) {
  return std::equal(text.begin(), text.end(), word.begin(), word.end(),
                    [](char one, char other) { return lower(one) == other; });
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [text](std::string_view word) { return same_word(text, word); });
}

// The field before the next comma, which `rest` loses.
std::string_view take_field(std::string_view& rest, bool& more) {
  const std::size_t comma = rest.find(',');
  more = comma != std::string_view::npos;
  const std::string_view field = rest.substr(0, comma);
  rest.remove_prefix(more ? comma + 1 : rest.size());
  return trimmed(field);
}

// A field as a message shows it: short, and nothing that would play tricks with a terminal.
std::string shown(std::string_view text) {
  std::string clean;
  for (const char letter : text.substr(0, shown_most)) clean += letter >= ' ' && letter <= '~' ? letter : '?';
  return text.size() > shown_most ? clean + "..." : clean;
}

// What a SCSI command does with blocks (SCSI Block Commands); none of these for all others.
std::optional<operation> operation_of_scsi(unsigned code) {
  switch (code) {
    case 0x08:  // READ (6), (10), (12), (16)
    case 0x28:
    case 0xa8:
    case 0x88:
      return operation::read;
    case 0x0a:  // WRITE (6), (10), (12), (16)
    case 0x2a:
    case 0xaa:
    case 0x8a:
    case 0x2e:  // WRITE AND VERIFY (10), (12), (16)
    case 0xae:
    case 0x8e:
    case 0x41:  // WRITE SAME (10), (16)
    case 0x93:
      return operation::write;
    case 0x42:  // UNMAP
      return operation::discard;
    case 0x35:  // SYNCHRONIZE CACHE (10), (16)
    case 0x91:
      return operation::flush;
    default:
      return std::nullopt;
  }
}

}  // namespace

void trace_parser::refuse_line(const std::string& problem) const {
  throw bad_start(fmt::format("{}: line {}: {}", name_, line_number_, problem));
}

void trace_parser::refuse(column which, std::string_view text, const std::string& problem) const {
  const std::size_t at = static_cast<std::size_t>(which);
  throw bad_start(fmt::format("{}: line {}, column {} ({}): \"{}\" {}", name_, line_number_, index_of_[at] + 1,
                              title_of_[at], shown(text), problem));
}

std::optional<request> trace_parser::parse_line(std::string_view line) {
  ++line_number_;
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (line_number_ == 1 && line.starts_with(byte_order_mark)) line.remove_prefix(byte_order_mark.size());
  if (trimmed(line).empty()) return std::nullopt;
  if (header_seen_) return parse_request(line);
  parse_header(line);
  return std::nullopt;
}

void trace_parser::finish() const {
  if (!header_seen_) {
    throw bad_start(
        fmt::format("{}: is empty; a trace begins with a line that names its columns, such as "
                    "op,offset,size",
                    name_));
  }
}

void trace_parser::parse_header(std::string_view line) {
  header_seen_ = true;
  fields_in_line_ = 0;
  for (bool more = true; more; ++fields_in_line_) take_column(take_field(line, more), fields_in_line_);
  constexpr std::array<std::string_view, column_count> wanted = {
      "what is done: op", "where: offset (in bytes) or lbn (in 512-byte blocks)", "how much: size (in bytes)"};
  for (std::size_t i = 0; i < column_count; ++i) {
    if (index_of_[i] != nowhere) continue;
    refuse_line(fmt::format("no column says {}; the first line names the columns, such as op,offset,size", wanted[i]));
  }
}

void trace_parser::take_column(std::string_view title, std::size_t index) {
  std::optional<column> found;
  if (is_one_of(title, {"op", "operation", "opcode"})) {
    found = column::operation;
  } else if (same_word(title, "offset")) {
    found = column::offset;
  } else if (is_one_of(title, {"lbn", "lba", "sector"})) {
    found = column::offset;
    offset_unit_ = sector_size;
  } else if (is_one_of(title, {"size", "length"})) {
    found = column::length;
  }
  if (!found) return;  // such as version and time
  const std::size_t at = static_cast<std::size_t>(*found);
  if (index_of_[at] != nowhere) {
    refuse_line(fmt::format("columns {} ({}) and {} ({}) say the same; give one of them another name",
                            index_of_[at] + 1, title_of_[at], index + 1, shown(title)));
  }
  index_of_[at] = index;
  title_of_[at] = title;
}

std::optional<request> trace_parser::parse_request(std::string_view line) {
  std::array<std::string_view, column_count> fields;
  std::size_t count = 0;
  for (bool more = true; more; ++count) {
    const std::string_view field = take_field(line, more);
    for (std::size_t i = 0; i < column_count; ++i) {
      if (index_of_[i] == count) fields[i] = field;
    }
  }
  if (count != fields_in_line_) {
    refuse_line(fmt::format("has {} {}, but the first line names {}; is the file cut short or damaged here?", count,
                            count == 1 ? "field" : "fields", fields_in_line_));
  }
  const auto what = parse_operation(fields[0]);
  if (!what) {
    ++commands_skipped_;
    return std::nullopt;
  }
  if (*what == operation::flush) return request{operation::flush, 0, 0};
  const std::uint64_t blocks = parse_number(column::offset, fields[1]);
  const std::uint64_t length = parse_number(column::length, fields[2]);
  if (blocks > disk_end_most / offset_unit_) refuse(column::offset, fields[1], "is past 2 EiB, where no disk is");
  const std::uint64_t offset = blocks * offset_unit_;
  if (*what != operation::discard && length > transfer_most) {
    refuse(column::length, fields[2], "is more than 1 GiB in one request; sizes are in bytes");
  }
  if (length > disk_end_most - offset) refuse(column::length, fields[2], "ends past 2 EiB, where no disk is");
  return request{*what, offset, length};
}

// None for a SCSI command that is not for blocks' contents.
std::optional<operation> trace_parser::parse_operation(std::string_view text) const {
  if (is_one_of(text, {"read", "r"})) return operation::read;
  if (is_one_of(text, {"write", "w"})) return operation::write;
  if (is_one_of(text, {"discard", "trim", "unmap"})) return operation::discard;
  if (is_one_of(text, {"flush", "sync"})) return operation::flush;
  const std::string_view digits = text.starts_with("0x") || text.starts_with("0X") ? text.substr(2) : text;
  std::uint8_t code = 0;
  const auto [stopped, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
  if (error != std::errc() || stopped != digits.data() + digits.size() || digits.size() > 2) {
    refuse(
        column::operation, text,
        "is no operation; expected read, write, discard or flush, or a SCSI opcode in hexadecimal, such as 28 (read) "
        "or 2a (write)");
  }
  return operation_of_scsi(code);
}

std::uint64_t trace_parser::parse_number(column which, std::string_view text) const {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range && stopped == end) refuse(which, text, "is larger than any disk");
  if (error != std::errc() || stopped != end) {
    refuse(which, text,
           which == column::offset && offset_unit_ != 1 ? "is not a whole number of 512-byte blocks, in decimal"
                                                        : "is not a whole number of bytes, in decimal");
  }
  return number;
}

}  // namespace larder::server::replay

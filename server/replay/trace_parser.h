// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/replay/request.h"

namespace larder::server::replay {

// Understands a trace line by line: CSV, whose first line names the columns (docs/replay.md). Used by one thread.
class trace_parser {
 public:
  // `name` is the trace's, for messages.
  explicit trace_parser(std::string name) : name_(std::move(name)) {}

  // The next line, without its end. The request in it; none in the header, in a line of blanks, and in a SCSI command
  // that is no I/O, which is counted. Throws bad_start with the line, the column, what is wrong and what to do.
  std::optional<request> parse_line(std::string_view line);
  // After the last line: throws bad_start if there was no header.
  void finish() const;

  const std::string& name() const { return name_; }
  std::uint64_t lines() const { return line_number_; }
  std::uint64_t commands_skipped() const { return commands_skipped_; }
  // Throws bad_start about the line that was parsed last, as a whole.
  [[noreturn]] void refuse_line(const std::string& problem) const;

 private:
  enum class column : std::uint8_t { operation, offset, length };
  static constexpr std::size_t column_count = 3;
  static constexpr std::size_t nowhere = ~std::size_t{0};

  void parse_header(std::string_view line);
  void take_column(std::string_view title, std::size_t index);
  std::optional<request> parse_request(std::string_view line);
  std::optional<operation> parse_operation(std::string_view text) const;
  std::uint64_t parse_number(column which, std::string_view text) const;
  [[noreturn]] void refuse(column which, std::string_view text, const std::string& problem) const;

  const std::string name_;
  std::uint64_t line_number_ = 0;
  std::uint64_t commands_skipped_ = 0;
  bool header_seen_ = false;
  std::size_t fields_in_line_ = 0;
  std::array<std::size_t, column_count> index_of_{nowhere, nowhere, nowhere};
  std::array<std::string, column_count> title_of_;
  std::uint64_t offset_unit_ = 1;  // bytes in one step of the offset
};

}  // namespace larder::server::replay

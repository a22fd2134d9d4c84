// SPDX-License-Identifier: Apache-2.0
#include "server/replay/trace_reader.h"

#include <cstring>

#include <fmt/format.h>

#include "server/service.h"

namespace larder::server::replay {
namespace {

// As much as is read at once, and the longest line: no trace's line has more than some hundred bytes.
constexpr std::size_t buffer_size = 256 << 10;
constexpr int standard_input = 0;

std::string problem_of(std::error_code error) {
  if (error == error_from(ENOENT)) return "there is no such file; name a trace, or - for standard input";
  if (error == error_from(EACCES) || error == error_from(EPERM)) {
    return "may not be read; change its permissions, or run as who may";
  }
  if (error == error_from(EISDIR)) return "is a directory; name a trace, or - for standard input";
  return fmt::format("cannot be read: {}", error.message());
}

os::descriptor open_trace(const std::string& path) {
  if (path == "-") return {};
  auto opened = os::open_file(path, os::access::read_only);
  if (!opened) throw bad_start(fmt::format("{}: {}", path, problem_of(opened.error())));
  return std::move(*opened);
}

}  // namespace

trace_reader::trace_reader(const std::string& path)
    : trace_reader(path == "-" ? "standard input" : path, open_trace(path)) {}

trace_reader::trace_reader(std::string name, os::descriptor file)
    : parser_(std::move(name)),
      file_(std::move(file)),
      number_(file_ ? file_.number() : standard_input),
      buffer_(buffer_size) {
  look_at_file();
}

void trace_reader::look_at_file() {
  const auto facts = os::facts_of(number_);
  if (!facts) throw bad_start(fmt::format("{}: {}", parser_.name(), problem_of(facts.error())));
  if (facts->directory) throw bad_start(fmt::format("{}: {}", parser_.name(), problem_of(error_from(EISDIR))));
  if (facts->regular) size_ = facts->size;
}

bool trace_reader::next(request& into) {
  std::string_view line;
  while (next_line(line)) {
    if (const auto found = parser_.parse_line(line)) {
      into = *found;
      return true;
    }
  }
  parser_.finish();
  return false;
}

// Without its end. The last one may have none.
bool trace_reader::next_line(std::string_view& line) {
  for (std::size_t searched = 0;;) {
    const char* const start = buffer_.data() + begin_;
    const auto* const found = static_cast<const char*>(std::memchr(start + searched, '\n', end_ - begin_ - searched));
    if (found != nullptr) {
      line = {start, static_cast<std::size_t>(found - start)};
      begin_ += line.size() + 1;
      return true;
    }
    searched = end_ - begin_;
    if (at_end_) {
      line = {start, searched};
      begin_ = end_;
      return searched > 0;
    }
    fill();
  }
}

void trace_reader::fill() {
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (end_ == buffer_.size()) {
    throw bad_start(fmt::format("{}: line {}: has more than {} KiB; is this a text file with a request in each line?",
                                parser_.name(), parser_.lines() + 1, buffer_size >> 10));
  }
  const auto got = os::read_next(number_, std::span(buffer_).subspan(end_));
  if (!got) {
    throw bad_start(fmt::format("{}: after line {}: {}", parser_.name(), parser_.lines(), problem_of(got.error())));
  }
  at_end_ = *got == 0;
  end_ += *got;
  position_ += bytes{*got};
}

}  // namespace larder::server::replay

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "os/file.h"
#include "server/replay/trace_parser.h"

namespace larder::server::replay {

// The requests of a trace, one after the other, with one buffer of the file in memory. Used by one thread.
class trace_reader {
 public:
  // Opens a file; "-": standard input. Throws bad_start.
  explicit trace_reader(const std::string& path);
  // Reads what is open, under that name.
  trace_reader(std::string name, os::descriptor file);

  // The next request; false at the trace's end. Blocks on the file. Throws bad_start.
  bool next(request& into);

  const trace_parser& parser() const { return parser_; }
  // How much was read, of how much there is; 0 if that is not known, as of a pipe.
  bytes position() const { return position_; }
  bytes size() const { return size_; }

 private:
  void look_at_file();
  bool next_line(std::string_view& line);
  void fill();

  trace_parser parser_;
  os::descriptor file_;
  int number_;
  bytes size_;
  bytes position_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // what was read and not parsed
  std::size_t end_ = 0;
  bool at_end_ = false;
};

}  // namespace larder::server::replay

// SPDX-License-Identifier: Apache-2.0
//
// The text of a trace: any text is understood, or refused by a message of one line.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "server/replay/trace_parser.h"
#include "server/service.h"

namespace {

using namespace larder;

void check(const server::replay::request& found) {
  using server::replay::operation;
  LARDER_CHECK(found.offset <= server::replay::disk_end_most, "an offset past every disk");
  LARDER_CHECK(found.length <= server::replay::disk_end_most - found.offset, "an end past every disk");
  LARDER_CHECK(found.what == operation::discard || found.length <= server::replay::transfer_most, "too long");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  server::replay::trace_parser parser("trace");
  std::string_view rest = text;
  try {
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      if (const auto found = parser.parse_line(rest.substr(0, end))) check(*found);
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    }
    parser.finish();
  } catch (const server::bad_start& problem) {
    const std::string message = problem.what();
    LARDER_CHECK(message.starts_with("trace: ") && message.size() > 20, "a refusal that explains nothing");
    LARDER_CHECK(message.size() < 400 && message.find_first_of("\n\r\x1b") == std::string::npos, "not one short line");
  }
  return 0;
}

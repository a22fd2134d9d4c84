// SPDX-License-Identifier: Apache-2.0
//
// The texts of a command line: any text is understood, or refused by a message.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "server/options.h"
#include "server/service.h"

namespace {

using namespace larder;

template <typename Parse>
void parse(Parse parse_text, const std::string& text) {
  try {
    parse_text(text);
  } catch (const server::bad_start& problem) {
    LARDER_CHECK(std::string(problem.what()).size() > 10, "a refusal that explains nothing");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A word of a command line ends at its first zero byte.
  const std::string text(data, std::find(data, data + size, 0));
  parse(
      [](const std::string& word) {
        const auto image = server::parse_export(word);
        const std::string again = image.name + "=" + image.path + (image.read_only ? ",ro" : "");
        LARDER_CHECK(again == word && !image.name.empty() && !image.path.empty(), "an export that reads otherwise");
      },
      text);
  parse(
      [](const std::string& word) {
        const auto address = server::parse_address(word);
        LARDER_CHECK(word.size() > address.host.size(), "a host longer than its address");
      },
      text);
  if (const auto amount = parse_bytes(text)) {
    const auto again = parse_bytes(format_bytes(*amount));
    LARDER_CHECK(again && *again == *amount, "an amount that reads otherwise");
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// The handshake fed with any bytes: in pieces it says, eats and ends with the same as in one, it never eats more than
// it is given, and no option makes it say more than all exports' names. The input's first byte chooses the pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "server/nbd/handshake.h"

namespace {

using larder::nbd::export_view;
using larder::nbd::handshake;

class recorder final : public handshake::output {
 public:
  bool say(std::span<const std::byte> bytes) override {
    all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  }
  std::string all;
};

struct ending {
  std::string said;
  std::size_t eaten;
  handshake::state state;
  std::size_t chosen;
};

const std::vector<export_view>& exports() {
  static const std::vector<export_view> all{
      {"a", 1U << 20, false}, {"disk.img", 12345, true}, {std::string(255, 'x'), 1U << 30, false}};
  return all;
}

// Pieces of 1 … `longest` bytes, in the manner of a connection.
ending run(std::span<const std::byte> input, std::size_t longest) {
  handshake machine;
  recorder out;
  std::size_t eaten = 0;
  std::size_t given = 0;
  std::size_t piece = 1;
  while (given < input.size()) {
    given = std::min(input.size(), given + piece);
    piece = piece % longest + 1;
    const std::size_t step = machine.feed(input.subspan(eaten, given - eaten), exports(), out);
    LARDER_CHECK(step <= given - eaten, "ate %zu bytes of %zu", step, given - eaten);
    eaten += step;
    if (machine.now() == handshake::state::transmission || machine.now() == handshake::state::closing) break;
    LARDER_CHECK(given - eaten < handshake::longest_message, "leaves %zu bytes of a message", given - eaten);
  }
  return {std::move(out.all), eaten, machine.now(), machine.chosen_export()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data, size)).subspan(1);
  const ending whole = run(input, SIZE_MAX - 1);
  handshake machine;
  recorder out;
  const std::size_t eaten = machine.feed(input, exports(), out);
  // An option takes 16 bytes at least, and LIST, which says most, names every export.
  constexpr std::size_t said_per_option_most = 20 * 4 + 4 * 3 + 1 + 8 + 255;
  LARDER_CHECK(out.all.size() <= (input.size() / 16 + 1) * said_per_option_most, "%zu bytes said for %zu",
               out.all.size(), input.size());
  for (const std::size_t longest : {std::size_t{1}, std::size_t{data[0]} + 1}) {
    const ending pieces = run(input, longest);
    LARDER_CHECK(pieces.said == out.all && pieces.eaten == eaten && pieces.state == machine.now() &&
                     pieces.chosen == machine.chosen_export(),
                 "in pieces of %zu bytes it ends otherwise", longest);
  }
  LARDER_CHECK(whole.said == out.all && whole.eaten == eaten, "in growing pieces it ends otherwise");
  return 0;
}

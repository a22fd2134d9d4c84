// SPDX-License-Identifier: Apache-2.0
#include "server/nbd/handshake.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace larder::nbd {
namespace {

using state = handshake::state;

// What the server says, kept.
class recorder final : public handshake::output {
 public:
  bool say(std::span<const std::byte> bytes) override {
    if (said_before_failing == 0) return false;
    --said_before_failing;
    all.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  }
  std::string all;
  std::size_t said_before_failing = SIZE_MAX;
};

template <typename Integer>
std::string number(Integer value) {
  std::array<std::byte, sizeof value> bytes;
  store_big_endian(bytes.data(), value);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::string option_message(std::uint32_t asked, const std::string& data) {
  return number(option_magic) + number(asked) + number(static_cast<std::uint32_t>(data.size())) + data;
}
std::string option_message(option asked, const std::string& data = {}) {
  return option_message(static_cast<std::uint32_t>(asked), data);
}
// The data of INFO and GO.
std::string choice(const std::string& name, const std::vector<std::uint16_t>& wishes = {}) {
  std::string data = number(static_cast<std::uint32_t>(name.size())) + name;
  data += number(static_cast<std::uint16_t>(wishes.size()));
  for (const std::uint16_t wish : wishes) data += number(wish);
  return data;
}
const std::string modern_flags = number(std::uint32_t{flag_fixed_newstyle | flag_no_zeroes});

struct option_reply {
  option asked;
  std::uint32_t type;
  std::string data;
};

std::vector<option_reply> replies_in(std::string_view said) {
  std::vector<option_reply> found;
  while (!said.empty()) {
    const auto* at = reinterpret_cast<const std::byte*>(said.data());
    EXPECT_GE(said.size(), option_reply_header_size);
    EXPECT_EQ(load_big_endian<std::uint64_t>(at), option_reply_magic);
    const auto length = load_big_endian<std::uint32_t>(at + 16);
    found.push_back({static_cast<option>(load_big_endian<std::uint32_t>(at + 8)),
                     load_big_endian<std::uint32_t>(at + 12),
                     std::string(said.substr(option_reply_header_size, length))});
    said.remove_prefix(option_reply_header_size + length);
  }
  return found;
}

class HandshakeTest : public ::testing::Test {
 protected:
  // Gives the machine `text` in pieces that end at `cuts`, as a connection does: what it leaves comes again with more.
  std::size_t feed(handshake& machine, recorder& out, std::string_view text,
                   const std::vector<std::size_t>& cuts = {}) {
    std::size_t eaten = 0;
    const auto look = [&](std::size_t end) {
      const std::size_t step = machine.feed(std::as_bytes(std::span(text.substr(eaten, end - eaten))), exports_, out);
      EXPECT_LE(step, end - eaten);
      eaten += step;
      const bool over = machine.now() == state::transmission || machine.now() == state::closing;
      if (!over) {
        EXPECT_LT(end - eaten, handshake::longest_message) << "asks to see more than it says";
      }
    };
    for (const std::size_t cut : cuts) look(cut);
    look(text.size());
    return eaten;
  }
  std::size_t feed(std::string_view text) { return feed(machine_, out_, text); }
  std::vector<option_reply> replies() const { return replies_in(out_.all); }

  std::vector<export_view> exports_{{"first", 1000, false}, {std::string(255, 'n'), 2000, true}};
  handshake machine_;
  recorder out_;
};

TEST_F(HandshakeTest, GreetsAsFixedNewstyle) {
  EXPECT_TRUE(handshake::greet(out_));
  EXPECT_EQ(out_.all, "NBDMAGICIHAVEOPT" + number(std::uint16_t{3}));
}

TEST_F(HandshakeTest, GoTellsOfTheExportAndBeginsTransmission) {
  EXPECT_EQ(feed(modern_flags + option_message(option::go, choice("first")) + "rest"), 4 + 16 + 4 + 5 + 2U);
  EXPECT_EQ(machine_.now(), state::transmission);
  EXPECT_EQ(machine_.chosen_export(), 0U);
  const auto said = replies();
  ASSERT_EQ(said.size(), 3U);
  EXPECT_EQ(said[0].type, reply_info);
  EXPECT_EQ(said[0].data, number(info_export) + number(std::uint64_t{1000}) + number(exports_[0].flags()));
  EXPECT_EQ(said[1].type, reply_info);
  EXPECT_EQ(said[1].data, number(info_block_size) + number(std::uint32_t{1}) + number(std::uint32_t{4096}) +
                              number(std::uint32_t{32U << 20}));
  EXPECT_EQ(said[2].type, reply_ack);
}

TEST_F(HandshakeTest, InfoTellsTheSameAndGoesOn) {
  feed(modern_flags + option_message(option::info, choice(exports_[1].name, {3})));
  EXPECT_EQ(machine_.now(), state::option_header);
  const auto said = replies();
  ASSERT_EQ(said.size(), 3U);
  EXPECT_EQ(said[0].data, number(info_export) + number(std::uint64_t{2000}) + number(exports_[1].flags()));
  EXPECT_EQ(said[2].asked, option::info);
  EXPECT_EQ(said[2].type, reply_ack);
}

TEST_F(HandshakeTest, EverySplitOfTheStreamGivesTheSame) {
  const std::string stream = modern_flags + option_message(99, "unknown") + option_message(option::list) +
                             option_message(option::info, choice("none")) + option_message(5, std::string(600, 'x')) +
                             option_message(option::info, choice("", {0, 3})) +
                             option_message(option::go, choice(exports_[1].name, std::vector<std::uint16_t>(300, 3)));
  ASSERT_EQ(feed(stream), stream.size());
  ASSERT_EQ(machine_.now(), state::transmission);
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    handshake machine;
    recorder out;
    EXPECT_EQ(feed(machine, out, stream + "tail", {cut}), stream.size()) << cut;
    EXPECT_EQ(machine.now(), state::transmission) << cut;
    EXPECT_EQ(machine.chosen_export(), 1U);
    EXPECT_EQ(out.all, out_.all) << cut;
  }
  std::vector<std::size_t> every_byte;
  for (std::size_t cut = 0; cut < stream.size(); ++cut) every_byte.push_back(cut);
  handshake machine;
  recorder out;
  EXPECT_EQ(feed(machine, out, stream, every_byte), stream.size());
  EXPECT_EQ(out.all, out_.all);
}

TEST_F(HandshakeTest, ListNamesAllExports) {
  feed(modern_flags + option_message(option::list));
  const auto said = replies();
  ASSERT_EQ(said.size(), 3U);
  EXPECT_EQ(said[0].type, reply_server);
  EXPECT_EQ(said[0].data, number(std::uint32_t{5}) + "first");
  EXPECT_EQ(said[1].data, number(std::uint32_t{255}) + exports_[1].name);
  EXPECT_EQ(said[2].type, reply_ack);
}

TEST_F(HandshakeTest, ListWithDataIsInvalidAndTheDataIsSkipped) {
  for (const std::size_t length : {std::size_t{1}, handshake::option_data_kept, std::size_t{100'000}}) {
    handshake machine;
    recorder out;
    feed(machine, out,
         modern_flags + option_message(option::list, std::string(length, 'x')) + option_message(option::list));
    const auto said = replies_in(out.all);
    ASSERT_EQ(said.size(), 4U) << length;
    EXPECT_EQ(said[0].type, reply_error_invalid);
    EXPECT_EQ(said[3].type, reply_ack);
  }
}

TEST_F(HandshakeTest, UnknownOptionsAreUnsupportedAndTheirDataIsSkipped) {
  for (const std::uint32_t unknown : {0U, 4U, 5U, 8U, 9U, 10U, 0xffffffffU}) {
    handshake machine;
    recorder out;
    feed(machine, out,
         modern_flags + option_message(unknown, std::string(70'000, 'y')) + option_message(option::go, choice("")));
    EXPECT_EQ(machine.now(), state::transmission);
    const auto said = replies_in(out.all);
    ASSERT_EQ(said.size(), 4U);
    EXPECT_EQ(static_cast<std::uint32_t>(said[0].asked), unknown);
    EXPECT_EQ(said[0].type, reply_error_unsupported);
  }
}

TEST_F(HandshakeTest, AGoWithMoreWishesThanAreKeptBeginsTransmissionBehindThem) {
  const std::string go = option_message(option::go, choice(exports_[1].name, std::vector<std::uint16_t>(5000, 3)));
  const std::string head = modern_flags + go.substr(0, handshake::longest_message);
  const std::size_t eaten = feed(head);
  EXPECT_EQ(eaten, head.size());
  EXPECT_EQ(machine_.now(), state::skipping) << "its last wishes are no requests";
  feed(go.substr(handshake::longest_message, 5000));
  EXPECT_EQ(machine_.now(), state::skipping);
  const std::string rest = go.substr(handshake::longest_message + 5000) + "request";
  EXPECT_EQ(feed(rest), rest.size() - 7);
  EXPECT_EQ(machine_.now(), state::transmission);
  EXPECT_EQ(machine_.chosen_export(), 1U);
}

TEST_F(HandshakeTest, NamesOf255BytesAreFoundAndLongerOnesAreNot) {
  feed(modern_flags + option_message(option::info, choice(std::string(256, 'n'))) +
       option_message(option::info, choice(std::string(4096, 'n'))) +
       option_message(option::info, choice(std::string(254, 'n'))) +
       option_message(option::go, choice(std::string(255, 'n'))));
  const auto said = replies();
  ASSERT_EQ(said.size(), 6U);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(said[static_cast<std::size_t>(i)].type, reply_error_unknown) << i;
  EXPECT_EQ(machine_.now(), state::transmission);
  EXPECT_EQ(machine_.chosen_export(), 1U);
}

TEST_F(HandshakeTest, InfoWhoseLengthsDisagreeIsInvalid) {
  const std::vector<std::string> bad = {
      {},
      std::string(5, '\0'),
      number(std::uint32_t{1}) + number(std::uint16_t{0}),  // the name is not there
      number(std::uint32_t{0xffffffff}) + "abcdef",         // nor could it be
      choice("first") + "x",                                // more than is said
      number(std::uint32_t{0}) + number(std::uint16_t{1}),  // less than is said
      number(std::uint32_t{0}) + number(std::uint16_t{0xffff}) + "abcd",
  };
  for (const std::string& data : bad) {
    handshake machine;
    recorder out;
    feed(machine, out, modern_flags + option_message(option::go, data) + option_message(option::list));
    const auto said = replies_in(out.all);
    ASSERT_EQ(said.size(), 4U);
    EXPECT_EQ(said[0].type, reply_error_invalid) << data.size();
    EXPECT_EQ(machine.now(), state::option_header);
  }
}

TEST_F(HandshakeTest, TheEmptyNameIsTheFirstExport) {
  feed(modern_flags + option_message(option::export_name, ""));
  EXPECT_EQ(machine_.now(), state::transmission);
  EXPECT_EQ(machine_.chosen_export(), 0U);
  EXPECT_EQ(out_.all, number(std::uint64_t{1000}) + number(exports_[0].flags()));
}

TEST_F(HandshakeTest, ExportNameToAClientThatWantsZeroesSends124OfThem) {
  feed(number(std::uint32_t{flag_fixed_newstyle}) + option_message(option::export_name, exports_[1].name));
  EXPECT_EQ(machine_.now(), state::transmission);
  EXPECT_EQ(out_.all, number(std::uint64_t{2000}) + number(exports_[1].flags()) + std::string(124, '\0'));
}

TEST_F(HandshakeTest, ExportNameOfNoExportCloses) {
  for (const std::string& name : {std::string("firs"), std::string(256, 'n'), std::string(70'000, 'n')}) {
    handshake machine;
    recorder out;
    feed(machine, out, modern_flags + option_message(option::export_name, name));
    EXPECT_EQ(machine.now(), state::closing) << name.size();
    EXPECT_EQ(out.all, "");
  }
  exports_.clear();
  feed(modern_flags + option_message(option::export_name, ""));
  EXPECT_EQ(machine_.now(), state::closing);
}

TEST_F(HandshakeTest, AbortIsAcknowledgedAndNothingIsEatenAfterIt) {
  const std::string stream = modern_flags + option_message(option::abort);
  EXPECT_EQ(feed(stream + option_message(option::list)), stream.size());
  EXPECT_EQ(machine_.now(), state::closing);
  ASSERT_EQ(replies().size(), 1U);
  EXPECT_EQ(replies()[0].type, reply_ack);
}

TEST_F(HandshakeTest, WrongMagicAndUnknownFlagsClose) {
  feed(modern_flags + std::string(16, 'x'));
  EXPECT_EQ(machine_.now(), state::closing);
  for (const std::uint32_t flags : {4U, 0x10000U, 0xffffffffU}) {
    handshake machine;
    recorder out;
    feed(machine, out, number(flags));
    EXPECT_EQ(machine.now(), state::closing) << flags;
  }
  EXPECT_EQ(out_.all, "");
}

TEST_F(HandshakeTest, OutputThatFailsAtAnyPointCloses) {
  const std::vector<std::pair<std::string, std::size_t>> streams = {
      {option_message(option::list), 3},
      {option_message(option::info, choice("")), 3},
      {option_message(option::go, choice("")), 3},
      {option_message(option::go, choice("", std::vector<std::uint16_t>(999, 3))), 3},
      {option_message(option::export_name, "first"), 1},
      {option_message(77, "data"), 1}};
  for (const auto& [message, replies_whole] : streams) {
    for (std::size_t said = 0; said < replies_whole; ++said) {
      handshake machine;
      recorder out;
      out.said_before_failing = said;
      feed(machine, out, modern_flags + message);
      EXPECT_EQ(machine.now(), state::closing) << said;
    }
  }
  out_.said_before_failing = 0;
  EXPECT_FALSE(handshake::greet(out_));
}

TEST_F(HandshakeTest, FlagsSayWhatAnExportCanDo) {
  const std::uint16_t always = has_flags | can_flush | can_fua | can_multi_connection;
  EXPECT_EQ(exports_[0].flags(), always | can_trim | can_write_zeroes);
  EXPECT_EQ(exports_[1].flags(), always | is_read_only);
}

}  // namespace
}  // namespace larder::nbd

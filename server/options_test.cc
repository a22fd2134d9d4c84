// SPDX-License-Identifier: Apache-2.0
#include "server/options.h"

#include <gtest/gtest.h>

#include "server/service.h"

namespace larder::server {
namespace {

// The message of a refusal; empty if there was none.
template <typename Function>
std::string refusal(Function function) {
  try {
    function();
  } catch (const bad_start& problem) {
    return problem.what();
  }
  return {};
}

std::optional<serve_options> read(std::vector<const char*> words) {
  words.insert(words.begin(), {"larder", "serve"});
  auto chosen = read_command_line(static_cast<int>(words.size()), words.data());
  if (!chosen) return std::nullopt;
  return std::get<serve_options>(*std::move(chosen));
}
std::string refusal_of(const std::vector<const char*>& words) {
  const std::string message = refusal([&] { (void)read(words); });
  EXPECT_EQ(message.find('\n'), std::string::npos) << "not one line: " << message;
  return message;
}

TEST(OptionsTest, NothingSaidMeansADemonstrationDiskOnASocketHere) {
  const auto chosen = read({});
  ASSERT_TRUE(chosen);
  EXPECT_TRUE(chosen->images.empty());
  EXPECT_EQ(chosen->memory, 16_MiB);
  EXPECT_EQ(chosen->sockets, std::vector<std::string>{"larder.sock"});
  EXPECT_TRUE(chosen->addresses.empty());
  EXPECT_GE(chosen->workers, 1U);
}

TEST(OptionsTest, EverythingSaidIsTaken) {
  const auto chosen =
      read({"dir/one.img", "two.img", "--export", "x=three.img,ro", "--memory", "600K", "--socket", "a.sock",
            "--socket", "b.sock", "--listen", "127.0.0.1:0", "--listen", "[::1]:10809", "--workers", "3"});
  ASSERT_TRUE(chosen);
  ASSERT_EQ(chosen->images.size(), 3U);
  EXPECT_EQ(chosen->images[0].name, "one.img");
  EXPECT_EQ(chosen->images[0].path, "dir/one.img");
  EXPECT_FALSE(chosen->images[1].read_only);
  EXPECT_EQ(chosen->images[2].name, "x");
  EXPECT_EQ(chosen->images[2].path, "three.img");
  EXPECT_TRUE(chosen->images[2].read_only);
  EXPECT_EQ(chosen->memory, 600_KiB);
  EXPECT_EQ(chosen->sockets, (std::vector<std::string>{"a.sock", "b.sock"}));
  ASSERT_EQ(chosen->addresses.size(), 2U);
  EXPECT_EQ(chosen->addresses[1].host, "::1");
  EXPECT_EQ(chosen->addresses[1].port, 10809);
  EXPECT_EQ(chosen->workers, 3U);
}

TEST(OptionsTest, ReadOnlyMeansEveryImage) {
  const auto chosen = read({"a.img", "-r", "-e", "b=b.img"});
  ASSERT_TRUE(chosen);
  for (const auto& image : chosen->images) EXPECT_TRUE(image.read_only) << image.name;
}

TEST(OptionsTest, AListenAddressTakesThePlaceOfTheDefaultSocket) {
  const auto chosen = read({"--listen", ":10809"});
  ASSERT_TRUE(chosen);
  EXPECT_TRUE(chosen->sockets.empty());
  EXPECT_EQ(chosen->addresses[0].host, "");
}

TEST(OptionsTest, AnImageMayFollowAnOptionThatCanBeRepeated) {
  const auto chosen = read(
      {"--socket", "a.sock", "one.img", "--listen", "127.0.0.1:0", "two.img", "--export", "x=three.img", "four.img"});
  ASSERT_TRUE(chosen);
  EXPECT_EQ(chosen->sockets, std::vector<std::string>{"a.sock"});
  ASSERT_EQ(chosen->addresses.size(), 1U);
  ASSERT_EQ(chosen->images.size(), 4U);
}

TEST(OptionsTest, HelpAndVersionLeaveNothingToDo) {
  for (const char* word : {"--help", "--version"}) {
    const std::vector<const char*> words = {"larder", word};
    testing::internal::CaptureStdout();
    EXPECT_FALSE(read_command_line(2, words.data()));
    EXPECT_NE(testing::internal::GetCapturedStdout().find("larder"), std::string::npos) << word;
  }
}

TEST(OptionsTest, AMemoryThatIsNoSizeIsRefusedWithAnExample) {
  for (const char* memory : {"lots", "-5", "", "M", "12Q", "1.5.2M", "16 M"}) {
    const std::string message = refusal_of({"--memory", memory});
    EXPECT_NE(message.find("--memory " + std::string(memory)), std::string::npos) << message;
    EXPECT_NE(message.find("such as 16M"), std::string::npos) << message;
  }
  EXPECT_NE(refusal_of({"--memory", "99999999999999999999G"}).find("more than there can be"), std::string::npos);
}

TEST(OptionsTest, WorkersAreFrom1To256) {
  for (const char* count : {"0", "257"}) {
    EXPECT_EQ(refusal_of({"--workers", count}), "--workers " + std::string(count) + ": a number from 1 to 256");
  }
  EXPECT_NE(refusal_of({"--workers", "many"}).find("see larder serve --help"), std::string::npos);
  EXPECT_EQ(read({"--workers", "256"})->workers, 256U);
}

TEST(OptionsTest, UnknownWordsPointToTheHelp) {
  EXPECT_NE(refusal_of({"--nonsense"}).find("see larder serve --help"), std::string::npos);
  const std::vector<const char*> none = {"larder"};
  EXPECT_NE(refusal([&] { (void)read_command_line(1, none.data()); }), "");
  const std::vector<const char*> unknown = {"larder", "eat"};
  EXPECT_NE(refusal([&] { (void)read_command_line(2, unknown.data()); }), "");
}

TEST(OptionsTest, TwoExportsOfOneNameAreRefusedWithAWayOut) {
  EXPECT_EQ(refusal_of({"--export", "twin=a.img", "--export", "twin=b.img,ro"}),
            "two exports are named \"twin\"; give one another name with --export NAME=b.img");
  EXPECT_EQ(refusal_of({"here/disk.img", "there/disk.img"}),
            "two exports are named \"disk.img\"; give one another name with --export NAME=there/disk.img");
  EXPECT_NE(refusal_of({"disk.img", "-e", "disk.img=other"}), "");
}

TEST(OptionsTest, ExportsAreANameAndAPath) {
  const auto image = parse_export("name=/a/path=with,signs,ro");
  EXPECT_EQ(image.name, "name");
  EXPECT_EQ(image.path, "/a/path=with,signs");
  EXPECT_TRUE(image.read_only);
  EXPECT_FALSE(parse_export("a=b,rw").read_only);
  EXPECT_EQ(parse_export(std::string(255, 'n') + "=p").name.size(), 255U);
}

TEST(OptionsTest, ExportsThatAreNoneAreRefused) {
  for (const char* text : {"", "name", "name=", "=path", "="}) {
    EXPECT_EQ(refusal([&] { (void)parse_export(text); }),
              "--export " + std::string(text) + ": expected NAME=PATH or NAME=PATH,ro");
  }
  EXPECT_EQ(refusal([] { (void)parse_export("name=,ro"); }), "--export name=,ro: the path is missing");
  EXPECT_EQ(refusal([] { (void)parse_export(std::string(256, 'n') + "=p"); }),
            "--export: a name of 256 bytes; it can have 1 to 255");
}

TEST(OptionsTest, AddressesAreAHostAndAPort) {
  EXPECT_EQ(parse_address("127.0.0.1:10809").host, "127.0.0.1");
  EXPECT_EQ(parse_address("127.0.0.1:65535").port, 65535);
  EXPECT_EQ(parse_address("[::1]:0").host, "::1");
  EXPECT_EQ(parse_address("localhost:1").host, "localhost");
  EXPECT_EQ(parse_address(":7").port, 7);
  EXPECT_EQ(parse_address("[]:7").host, "");
}

TEST(OptionsTest, AddressesThatAreNoneAreRefused) {
  for (const char* text : {"", "10809", "host", "host:", "host:x", "host:1x", "host:-1", "host: 1", "[::1]"}) {
    const std::string message = refusal([&] { (void)parse_address(text); });
    EXPECT_NE(message.find("--listen " + std::string(text) + ": "), std::string::npos) << message;
  }
  EXPECT_EQ(refusal([] { (void)parse_address("host:65536"); }),
            "--listen host:65536: a port is a number from 0 (any free one) to 65535");
  EXPECT_EQ(refusal([] { (void)parse_address("::1:10809"); }),
            "--listen ::1:10809: write an IPv6 address in brackets, such as [::1]:10809");
}

}  // namespace
}  // namespace larder::server

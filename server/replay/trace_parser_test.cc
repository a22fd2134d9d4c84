// SPDX-License-Identifier: Apache-2.0
#include "server/replay/trace_parser.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "server/service.h"

namespace larder::server::replay {
namespace {

// The requests of a text; throws what the parser throws.
std::vector<request> parsed(const std::vector<std::string>& lines, trace_parser& parser) {
  std::vector<request> found;
  for (const std::string& line : lines) {
    if (const auto next = parser.parse_line(line)) found.push_back(*next);
  }
  parser.finish();
  return found;
}
std::vector<request> parsed(const std::vector<std::string>& lines) {
  trace_parser parser("t.csv");
  return parsed(lines, parser);
}
std::string refusal(const std::vector<std::string>& lines) {
  try {
    (void)parsed(lines);
  } catch (const bad_start& problem) {
    return problem.what();
  }
  return "accepted";
}
// The refusal of a line after a plain header.
std::string refusal_of(const std::string& line) { return refusal({"op,offset,size", line}); }

TEST(TraceParserTest, ThePlainFormHasWordsAndBytes) {
  const std::vector<request> expected = {
      {operation::read, 0, 4096}, {operation::write, 4096, 512}, {operation::discard, 1 << 20, 1 << 30},
      {operation::flush, 0, 0},   {operation::read, 7, 0},       {operation::write, 1, 2}};
  EXPECT_EQ(parsed({"op,offset,size", "read,0,4096", "write,4096,512", "discard,1048576,1073741824", "flush,,", "R,7,0",
                    "Write , 1 ,\t2"}),
            expected);
}

TEST(TraceParserTest, TheFormOfVirtualDisksHasOpcodesAndBlocks) {
  const std::vector<request> expected = {{operation::write, 42932745ULL * 512, 512},
                                         {operation::read, 4096, 65536},
                                         {operation::read, 512, 512},
                                         {operation::write, 0, 4096},
                                         {operation::discard, 0, 4096},
                                         {operation::flush, 0, 0}};
  EXPECT_EQ(parsed({"version,time,op,size,lbn", "1,5633898,2a,512,42932745", "1,5633899.25,28,65536,8", "1,0,8,512,1",
                    "1,0,0x8A,4096,0", "1,0,42,4096,0", "1,0,35,0,0"}),
            expected);
}

TEST(TraceParserTest, EveryOpcodeOfAReadOrWriteIsKnownAndOthersAreCounted) {
  trace_parser parser("t.csv");
  std::vector<std::string> lines = {"op,lba,length"};
  for (int code = 0; code < 256; ++code) {
    char text[16];
    std::snprintf(text, sizeof text, "%02x,0,512", static_cast<unsigned>(code));
    lines.emplace_back(text);
  }
  std::size_t reads = 0;
  std::size_t writes = 0;
  for (const request& each : parsed(lines, parser)) {
    reads += each.what == operation::read ? 1U : 0U;
    writes += each.what == operation::write ? 1U : 0U;
  }
  EXPECT_EQ(reads, 4U);
  EXPECT_EQ(writes, 9U);
  EXPECT_EQ(parser.commands_skipped(), 256U - 4 - 9 - 1 - 2);
}

TEST(TraceParserTest, ColumnsAreFoundByTheirNamesInAnyOrder) {
  const std::vector<request> expected = {{operation::read, 512, 10}};
  EXPECT_EQ(parsed({"LENGTH, who ,Sector,OPERATION", "10,me,1,READ"}), expected);
  EXPECT_EQ(parsed({"\xef\xbb\xbfop,offset,size", "read,512,10"}), expected);
}

TEST(TraceParserTest, LineEndsOfOtherSystemsAndBlankLinesMeanNothing) {
  const std::vector<request> expected = {{operation::read, 1, 2}};
  EXPECT_EQ(parsed({"", " \t\r", "op,offset,size\r", "\r", "read,1,2\r", ""}), expected);
}

TEST(TraceParserTest, ATraceNeedsAHeader) {
  EXPECT_EQ(refusal({}), "t.csv: is empty; a trace begins with a line that names its columns, such as op,offset,size");
  EXPECT_EQ(refusal({"", "\r"}), refusal({}));
  EXPECT_EQ(refusal({"read,0,4096"}),
            "t.csv: line 1: no column says what is done: op; the first line names the columns, such as op,offset,size");
  EXPECT_NE(refusal({"op,size"}).find("where: offset (in bytes) or lbn (in 512-byte blocks)"), std::string::npos);
  EXPECT_NE(refusal({"", "op,offset"}).find("t.csv: line 2: no column says how much: size (in bytes)"),
            std::string::npos);
}

TEST(TraceParserTest, TwoColumnsMayNotSayTheSame) {
  EXPECT_EQ(refusal({"op,offset,lbn,size"}),
            "t.csv: line 1: columns 2 (offset) and 3 (lbn) say the same; give one of them another name");
  EXPECT_NE(refusal({"op,offset,size,length"}).find("columns 3 (size) and 4 (length)"), std::string::npos);
}

TEST(TraceParserTest, FieldsMustBeAsManyAsColumns) {
  EXPECT_EQ(refusal_of("read,1"),
            "t.csv: line 2: has 2 fields, but the first line names 3; is the file cut short or damaged here?");
  EXPECT_NE(refusal_of("read,1,2,3").find("has 4 fields"), std::string::npos);
  EXPECT_NE(refusal_of("read").find("has 1 field,"), std::string::npos);
}

TEST(TraceParserTest, WhatIsNoOperationIsRefused) {
  EXPECT_EQ(
      refusal_of("erase,0,1"),
      "t.csv: line 2, column 1 (op): \"erase\" is no operation; expected read, write, discard or flush, or a SCSI "
      "opcode in hexadecimal, such as 28 (read) or 2a (write)");
  for (const char* text : {"", "128", "0x", "2a2", "-1", "g0", "+8", "2a h"}) {
    EXPECT_NE(refusal_of(std::string(text) + ",0,1").find("is no operation"), std::string::npos) << text;
  }
}

TEST(TraceParserTest, WhatIsNoNumberIsRefused) {
  EXPECT_EQ(refusal_of("read,-1,1"),
            "t.csv: line 2, column 2 (offset): \"-1\" is not a whole number of bytes, in decimal");
  for (const char* text : {"", "0x10", "1.5", "1e3", "+1", "1 2", "ten", "1K", "-0", "99999999999999999999999x"}) {
    EXPECT_NE(refusal_of(std::string("read,") + text + ",1").find("column 2 (offset)"), std::string::npos) << text;
    EXPECT_NE(refusal_of(std::string("read,1,") + text).find("column 3 (size)"), std::string::npos) << text;
  }
  EXPECT_NE(refusal({"op,lbn,size", "28,x,1"}).find("\"x\" is not a whole number of 512-byte blocks"),
            std::string::npos);
}

TEST(TraceParserTest, NumbersBeyondEveryDiskAreRefused) {
  EXPECT_NE(refusal_of("read,18446744073709551616,1").find("is larger than any disk"), std::string::npos);
  EXPECT_NE(refusal_of("read,18446744073709551615,1").find("is past 2 EiB"), std::string::npos);
  EXPECT_NE(refusal_of("read,2305843009213693953,0").find("is past 2 EiB"), std::string::npos);
  EXPECT_NE(refusal_of("read,2305843009213693952,1").find("ends past 2 EiB"), std::string::npos);
  EXPECT_EQ(refusal_of("read,2305843009213693951,1"), "accepted");
  EXPECT_NE(refusal({"op,lbn,size", "28,4503599627370497,1"}).find("is past 2 EiB"), std::string::npos);
  EXPECT_EQ(refusal({"op,lbn,size", "28,4503599627370495,512"}), "accepted");
  EXPECT_NE(refusal_of("discard,1,18446744073709551615").find("ends past 2 EiB"), std::string::npos);
  EXPECT_EQ(refusal_of("read,0,1073741824"), "accepted");
  EXPECT_NE(refusal_of("write,0,1073741825").find("is more than 1 GiB in one request"), std::string::npos);
}

TEST(TraceParserTest, MessagesShowNoMoreThanALineAndNothingThatATerminalWouldObey) {
  const std::string message = refusal_of("\x1b[2J" + std::string(1000, 'y') + ",0,1");
  EXPECT_NE(message.find("\"?[2Jyyyy"), std::string::npos) << message;
  EXPECT_LT(message.size(), 300U);
}

}  // namespace
}  // namespace larder::server::replay

// SPDX-License-Identifier: Apache-2.0
#include "os/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"
#include "tests/support/model_random.h"

namespace larder::os {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = open_nameless_file(folder_, 64_KiB);
    ASSERT_TRUE(made) << made.error().message();
    file_ = std::move(*made);
  }
  void TearDown() override { fault::disarm(); }

  int number() const { return file_.number(); }
  void write_text(const std::string& text, std::uint64_t offset) const {
    ASSERT_EQ(::pwrite(number(), text.data(), text.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(text.size()));
  }
  std::string text_at(std::uint64_t offset, std::size_t length) const {
    std::string text(length, '?');
    EXPECT_EQ(::pread(number(), text.data(), length, static_cast<off_t>(offset)), static_cast<ssize_t>(length));
    return text;
  }

  const std::string folder_ = std::filesystem::temp_directory_path();
  descriptor file_;
};

iovec vector_of(std::string& text) { return {text.data(), text.size()}; }

int flags_of(int file) { return ::fcntl(file, F_GETFD); }

TEST(DescriptorTest, OwnsMovesAndCloses) {
  int pair[2];
  ASSERT_EQ(::pipe(pair), 0);
  descriptor reader(pair[0]);
  descriptor writer(pair[1]);
  descriptor moved(std::move(reader));
  EXPECT_FALSE(reader);
  EXPECT_EQ(moved.number(), pair[0]);
  moved = std::move(writer);
  EXPECT_EQ(flags_of(pair[0]), -1) << "assignment closes what was there";
  EXPECT_EQ(moved.number(), pair[1]);
  EXPECT_EQ(moved.release(), pair[1]);
  EXPECT_FALSE(moved);
  { const descriptor last(pair[1]); }
  EXPECT_EQ(flags_of(pair[1]), -1);
}

TEST_F(FileTest, NamelessFileIsSparseZeroAndInNoFolder) {
  struct stat status {};
  ASSERT_EQ(::fstat(number(), &status), 0);
  EXPECT_EQ(status.st_nlink, 0U);
  EXPECT_EQ(status.st_size, 64 << 10);
  EXPECT_EQ(status.st_blocks, 0);
  EXPECT_EQ(text_at(1000, 3), std::string(3, '\0'));
  EXPECT_NE(flags_of(number()) & FD_CLOEXEC, 0);
}

TEST_F(FileTest, OpensWhatIsThereAndTellsWhatItIs) {
  EXPECT_EQ(open_file(folder_ + "/larder-no-such-file", access::read_only).error(), error_from(ENOENT));
  const auto folder = open_file(folder_, access::read_only);
  ASSERT_TRUE(folder);
  const auto facts = facts_of(folder->number());
  ASSERT_TRUE(facts);
  EXPECT_TRUE(facts->directory);
  EXPECT_FALSE(facts->regular);
  EXPECT_EQ(open_file(folder_, access::read_write).error(), error_from(EISDIR));
  const auto own = facts_of(number());
  ASSERT_TRUE(own);
  EXPECT_TRUE(own->regular);
  EXPECT_FALSE(own->block_device);
  EXPECT_EQ(own->size, 64_KiB);
}

TEST_F(FileTest, OpeningAFifoDoesNotHang) {
  char name[] = "/tmp/larder-file-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const std::string path = std::string(name) + "/fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const auto opened = open_file(path, access::read_only);
  ASSERT_TRUE(opened);
  EXPECT_FALSE(facts_of(opened->number())->regular);
  std::filesystem::remove_all(name);
}

TEST_F(FileTest, WritesAndReadsManyVectorsOfUnevenLengths) {
  tests::model_random random;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> pieces(random.between(1, 200));  // more than are moved at once
    std::vector<iovec> vectors;
    std::string whole;
    for (std::string& piece : pieces) {
      piece.resize(random.below(100));  // some are empty
      for (char& letter : piece) letter = static_cast<char>('a' + random.below(26));
      whole += piece;
      vectors.push_back(vector_of(piece));
    }
    const std::uint64_t offset = random.below(30'000);
    ASSERT_TRUE(write_at(number(), vectors, offset));
    ASSERT_EQ(text_at(offset, whole.size()), whole);
    for (std::string& piece : pieces) std::fill(piece.begin(), piece.end(), '?');
    ASSERT_TRUE(read_at(number(), vectors, offset));
    std::string got;
    for (const std::string& piece : pieces) got += piece;
    ASSERT_EQ(got, whole);
  }
}

TEST_F(FileTest, ReadingPastTheEndGivesZeros) {
  write_text("tail", (64U << 10) - 4);
  // The end lies inside the second of three vectors.
  std::array<std::string, 3> pieces{std::string(3, '?'), std::string(5, '?'), std::string(100, '?')};
  const std::array<iovec, 3> vectors{vector_of(pieces[0]), vector_of(pieces[1]), vector_of(pieces[2])};
  ASSERT_TRUE(read_at(number(), vectors, (64U << 10) - 4));
  EXPECT_EQ(pieces[0], "tai");
  EXPECT_EQ(pieces[1], std::string("l\0\0\0\0", 5));
  EXPECT_EQ(pieces[2], std::string(100, '\0'));
  pieces[2].assign(100, '?');
  ASSERT_TRUE(read_at(number(), {&vectors[2], 1}, 1U << 20));
  EXPECT_EQ(pieces[2], std::string(100, '\0'));
}

TEST_F(FileTest, EmptyVectorsAreNotTakenForTheEnd) {
  std::string none;
  std::string text = "text";
  std::vector<iovec> vectors(70, vector_of(none));
  vectors.push_back(vector_of(text));
  vectors.push_back(vector_of(none));
  ASSERT_TRUE(write_at(number(), vectors, 10));
  text = "????";
  ASSERT_TRUE(read_at(number(), vectors, 10));
  EXPECT_EQ(text, "text");
  EXPECT_TRUE(write_at(number(), {}, 0));
  EXPECT_TRUE(read_at(number(), {}, 0));
}

// The kernel fills one buffer at a time for such a file, so one call never gives it whole.
TEST_F(FileTest, ShortReadsAreContinued) {
  const char* path = "/proc/kallsyms";
  std::ifstream stream(path, std::ios::binary);
  std::string expected(300'000, '\0');
  stream.read(expected.data(), static_cast<std::streamsize>(expected.size()));
  if (stream.gcount() < static_cast<std::streamsize>(expected.size())) GTEST_SKIP() << path << " is not there or short";
  const auto symbols = open_file(path, access::read_only);
  ASSERT_TRUE(symbols);
  std::string got(expected.size(), '?');
  const iovec whole = vector_of(got);
  ASSERT_LT(::preadv(symbols->number(), &whole, 1, 0), static_cast<ssize_t>(got.size())) << "the file was chosen badly";
  std::string first(1'000, '?');
  std::string rest(expected.size() - 1'000, '?');
  const std::array<iovec, 2> vectors{vector_of(first), vector_of(rest)};
  ASSERT_TRUE(read_at(symbols->number(), vectors, 0));
  EXPECT_TRUE(first + rest == expected);
}

// A limit on the file's size makes the kernel write a part first, then refuse the rest.
TEST_F(FileTest, ShortWriteIsContinuedUntilItsError) {
  const auto previous = ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string first = "12345";
  std::string second = "6789abcdef";
  const std::array<iovec, 2> vectors{vector_of(first), vector_of(second)};
  const auto written = write_at(number(), vectors, 2);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, previous);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error(), error_from(EFBIG));
  EXPECT_EQ(text_at(2, 8), "12345678");
  EXPECT_EQ(text_at(10, 2), std::string(2, '\0'));
}

TEST_F(FileTest, ZeroRangeReadsAsZerosAndKeepsTheSize) {
  for (const bool keep_blocks : {false, true}) {
    write_text(std::string(64U << 10, 'x'), 0);
    ASSERT_TRUE(sync_data(number()));
    struct stat full {};
    ASSERT_EQ(::fstat(number(), &full), 0);
    const auto zeroed = zero_range(number(), 5'000, 40'000, keep_blocks);
    if (!zeroed && zeroed.error() == error_from(EOPNOTSUPP)) {
      RecordProperty("not_supported", keep_blocks ? "keep" : "punch");
      continue;
    }
    ASSERT_TRUE(zeroed) << zeroed.error().message();
    EXPECT_EQ(text_at(5'000, 40'000), std::string(40'000, '\0'));
    EXPECT_EQ(text_at(4'999, 1) + text_at(45'000, 1), "xx");
    struct stat after {};
    ASSERT_EQ(::fstat(number(), &after), 0);
    EXPECT_EQ(after.st_size, full.st_size);
    if (keep_blocks) {
      EXPECT_EQ(after.st_blocks, full.st_blocks);
    } else {
      EXPECT_LT(after.st_blocks, full.st_blocks);
    }
  }
}

TEST_F(FileTest, ZeroRangeBeyondTheEndDoesNotGrowTheFile) {
  const auto zeroed = zero_range(number(), 60U << 10, 64U << 10, false);
  if (!zeroed) GTEST_SKIP() << zeroed.error().message();
  EXPECT_EQ(facts_of(number())->size, 64_KiB);
}

TEST_F(FileTest, InjectedFailuresAreTheCallsErrorsAndDoNothing) {
  std::string text = "text";
  const iovec vector = vector_of(text);
  fault::arm(call::write, 1, ENOSPC);
  EXPECT_EQ(write_at(number(), {&vector, 1}, 0).error(), error_from(ENOSPC));
  EXPECT_EQ(text_at(0, 4), std::string(4, '\0'));
  fault::arm(call::read, 1, EIO);
  EXPECT_EQ(read_at(number(), {&vector, 1}, 0).error(), error_from(EIO));
  EXPECT_EQ(text, "text");
  fault::arm(call::sync, 1, EIO);
  EXPECT_EQ(sync_data(number()).error(), error_from(EIO));
  fault::arm(call::allocate, 1, ENOSPC);
  EXPECT_EQ(zero_range(number(), 0, 4096, false).error(), error_from(ENOSPC));
  fault::arm(call::stat, 1, EIO);
  EXPECT_EQ(facts_of(number()).error(), error_from(EIO));
  fault::arm(call::open, 1, EMFILE, true);
  EXPECT_EQ(open_file(folder_, access::read_only).error(), error_from(EMFILE));
  EXPECT_EQ(open_nameless_file(folder_, 4_KiB).error(), error_from(EMFILE));
}

TEST_F(FileTest, RealErrorsComeThrough) {
  std::string text = "text";
  const iovec vector = vector_of(text);
  EXPECT_EQ(read_at(-1, {&vector, 1}, 0).error(), error_from(EBADF));
  EXPECT_EQ(write_at(-1, {&vector, 1}, 0).error(), error_from(EBADF));
  EXPECT_EQ(sync_data(-1).error(), error_from(EBADF));
  EXPECT_EQ(facts_of(-1).error(), error_from(EBADF));
  EXPECT_EQ(open_nameless_file("/larder-no-such-folder", 4_KiB).error(), error_from(ENOENT));
}

TEST_F(FileTest, DescriptorLimitIsRaisedToTheHardOne) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = std::min<rlim_t>(256, before.rlim_max);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  raise_descriptor_limit();
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, after.rlim_max);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace larder::os

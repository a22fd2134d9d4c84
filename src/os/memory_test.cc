// SPDX-License-Identifier: Apache-2.0
#include "os/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::os {
namespace {

class MemoryTest : public testing::Test {
 protected:
  void TearDown() override { fault::disarm(); }
};

// The process's whole address space in pages, read without allocating.
std::uint64_t mapped_pages() {
  char text[64] = {};
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  const ssize_t got = ::read(file, text, sizeof text - 1);
  ::close(file);
  return got > 0 ? std::strtoull(text, nullptr, 10) : 0;
}

std::uint64_t resident_pages(char* address, std::size_t length) {
  unsigned char present[256] = {};
  EXPECT_LE(length / page_size, sizeof present);
  EXPECT_EQ(::mincore(address, length, present), 0);
  std::uint64_t count = 0;
  for (const unsigned char page : present) count += page & 1U;
  return count;
}

// The line `name` of the mapping that holds `address`, from smaps.
std::string mapping_line(void* address, const std::string& name) {
  std::ifstream maps("/proc/self/smaps");
  bool within = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      within = reinterpret_cast<std::uintptr_t>(address) >= from && reinterpret_cast<std::uintptr_t>(address) < to;
    } else if (within && line.starts_with(name)) {
      return line;
    }
  }
  return {};
}

bool all_zero(const char* from, std::size_t length) {
  for (std::size_t i = 0; i < length; ++i) {
    if (from[i] != 0) return false;
  }
  return true;
}

TEST_F(MemoryTest, MapsZeroedWritableMemoryAtTheAlignment) {
  for (std::size_t alignment = page_size; alignment <= (16U << 20); alignment *= 4) {
    for (const bytes length : {4_KiB, 64_KiB, 3_MiB}) {
      const auto mapped = map(length, alignment);
      ASSERT_TRUE(mapped);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(*mapped) % alignment, 0U);
      char* start = static_cast<char*>(*mapped);
      EXPECT_TRUE(all_zero(start, length.count));
      std::memset(start, 1, length.count);
      unmap(start, length);
    }
  }
}

TEST_F(MemoryTest, NothingAroundAnAlignedRunStaysMapped) {
  mapped_pages();
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t before = mapped_pages();
    const auto mapped = map(64_KiB, 4U << 20);
    const std::uint64_t during = mapped_pages();
    ASSERT_TRUE(mapped);
    unmap(*mapped, 64_KiB);
    const std::uint64_t after = mapped_pages();
    EXPECT_EQ(during - before, 64_KiB / bytes{page_size});
    EXPECT_EQ(after, before);
  }
}

TEST_F(MemoryTest, OnlyTouchedPagesAreResident) {
  const auto mapped = map(1_MiB);
  ASSERT_TRUE(mapped);
  char* start = static_cast<char*>(*mapped);
  EXPECT_EQ(resident_pages(start, 1U << 20), 0U);
  start[5 * page_size] = 1;
  start[9 * page_size] = 1;
  EXPECT_EQ(resident_pages(start, 1U << 20), 2U);
  unmap(start, 1_MiB);
}

TEST_F(MemoryTest, HugePagesAreOffForSmallRunsAndLargeOnes) {
  if (mapping_line(__builtin_frame_address(0), "VmFlags").empty()) GTEST_SKIP() << "the kernel shows no VmFlags";
  for (const bytes length : {64_KiB, 8_MiB}) {
    const auto mapped = map(length);
    ASSERT_TRUE(mapped);
    EXPECT_NE(mapping_line(*mapped, "VmFlags").find(" nh"), std::string::npos) << length.count << " bytes";
    unmap(*mapped, length);
  }
}

TEST_F(MemoryTest, DiscardedPagesReadAsZerosAndAreNotResident) {
  const auto mapped = map(256_KiB);
  ASSERT_TRUE(mapped);
  char* start = static_cast<char*>(*mapped);
  std::memset(start, 0x5a, 256U << 10);
  ASSERT_TRUE(discard(start + 64 * 1024, 128_KiB));
  EXPECT_EQ(resident_pages(start, 256U << 10), 32U);
  EXPECT_TRUE(all_zero(start + 64 * 1024, 128U << 10));
  EXPECT_EQ(start[64 * 1024 - 1], 0x5a);
  EXPECT_EQ(start[192 * 1024], 0x5a);
  start[64 * 1024] = 1;  // the addresses are still good
  unmap(start, 256_KiB);
}

TEST_F(MemoryTest, ResidentPagesAreFoundAndCounted) {
  constexpr bytes length = 3_MiB;  // more than are looked at in one call
  const auto mapped = map(length);
  ASSERT_TRUE(mapped);
  char* start = static_cast<char*>(*mapped);
  const auto expect = [&](bytes untouched, std::size_t pages) {
    const auto found = look_for_residents(start, length);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->untouched, untouched);
    EXPECT_EQ(found->resident, bytes{pages * page_size});
  };
  expect(length, 0);
  start[length.count - 1] = 1;
  expect(length - bytes{page_size}, 1);
  start[(2_MiB).count] = 1;
  expect(2_MiB, 2);
  start[5] = 1;
  expect({}, 3);
  ASSERT_TRUE(discard(start, 1_MiB));
  expect(2_MiB, 2);
  fault::arm(call::residency, 1, EAGAIN);
  EXPECT_EQ(look_for_residents(start, length).error(), error_from(EAGAIN));
  unmap(start, length);
  EXPECT_EQ(look_for_residents(start, length).error(), error_from(ENOMEM)) << "what is not mapped";
}

TEST_F(MemoryTest, InjectedFailuresAreErrorsAndLeakNothing) {
  mapped_pages();
  const std::uint64_t before = mapped_pages();
  fault::arm(call::map, 1, ENOMEM);
  const auto refused = map(1_MiB);
  EXPECT_EQ(refused.error(), error_from(ENOMEM));
  const auto mapped = map(64_KiB);
  ASSERT_TRUE(mapped);
  char* start = static_cast<char*>(*mapped);
  start[0] = 1;
  fault::arm(call::advise, 1, EAGAIN);
  EXPECT_EQ(discard(start, 64_KiB).error(), error_from(EAGAIN));
  EXPECT_EQ(start[0], 1) << "a failed discard leaves the memory as it was";
  start[0] = 2;
  unmap(start, 64_KiB);
  EXPECT_EQ(mapped_pages(), before);
}

TEST_F(MemoryTest, ImpossibleLengthIsAnErrorNotADeath) {
  const auto refused = map(1_GiB * (1U << 20));  // more than any address space of today
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), error_from(ENOMEM));
}

TEST_F(MemoryTest, PhysicalMemoryIsTheMachines) {
  std::ifstream info("/proc/meminfo");
  std::string word;
  std::uint64_t kibibytes = 0;
  info >> word >> kibibytes;
  ASSERT_EQ(word, "MemTotal:");
  EXPECT_EQ(physical_memory(), 1_KiB * kibibytes);
}

TEST(MemoryDeathTest, PartOfAPageDies) {
  EXPECT_DEATH((void)map(100_B), "not whole pages");
  EXPECT_DEATH((void)map(0_B), "not whole pages");
  EXPECT_DEATH((void)map(4_KiB, 3 * page_size), "aligned to 12288");
}

}  // namespace
}  // namespace larder::os

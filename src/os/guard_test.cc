// SPDX-License-Identifier: Apache-2.0
#include "os/guard.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "os/fault.h"
#include "os/memory.h"

namespace larder::os {
namespace {

class GuardTest : public testing::Test {
 protected:
  GuardTest() { EXPECT_EQ(guards().protections, 0U); }
  ~GuardTest() override {
    EXPECT_TRUE(set_guard_share(50));
    unmap(start, length);
    EXPECT_EQ(guards().protections, 0U);
  }
  void TearDown() override { fault::disarm(); }

  static void without_markers() { fault::arm(call::guard, 1, EINVAL, true); }
  char* page(std::size_t number) const { return start + number * page_size; }

  static constexpr bytes length = 1_MiB;
  char* const start = static_cast<char*>(*map(length));
};

std::size_t system_mappings_max() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  std::size_t read = 65'530;
  file >> read;
  return read;
}

std::size_t mappings_of(const char* start, bytes length) {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    const auto from = reinterpret_cast<const char*>(std::stoull(line, nullptr, 16));
    if (from >= start && from < start + length.count) ++count;
  }
  return count;
}

void expect_a_guard(char* guarded) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto* touched = static_cast<volatile char*>(guarded);
  touched[-1] = 1;
  touched[page_size] = 1;
  EXPECT_DEATH(touched[0] = 1, "");
  EXPECT_DEATH((void)touched[page_size - 1], "");
}

TEST_F(GuardTest, GuardFaultsForReadsAndWritesAndSparesItsNeighbours) {
  const auto kind = install_guard(page(4), {page_size});
  ASSERT_TRUE(kind);
  expect_a_guard(page(4));
  remove_guard(page(4), {page_size}, *kind);
}

TEST_F(GuardTest, WithoutMarkersProtectionGuardsAndIsCounted) {
  without_markers();
  const std::size_t before = mappings_of(page(0), length);
  for (const std::size_t number : {4U, 8U, 12U})
    ASSERT_EQ(*install_guard(page(number), {page_size}), guard_kind::protection);
  EXPECT_EQ(guards().protections, 3U);
  EXPECT_LE(mappings_of(page(0), length), before + 2 * 3);
  expect_a_guard(page(8));
  for (const std::size_t number : {4U, 8U, 12U}) {
    remove_guard(page(number), {page_size}, guard_kind::protection);
    page(number)[0] = 1;  // as before
  }
  EXPECT_EQ(guards().protections, 0U);
  EXPECT_LE(mappings_of(page(0), length), before + 1) << "only beside page 8 was anything touched meanwhile";
}

TEST_F(GuardTest, ShareIsOfTheMappingsThatTheSystemAllows) {
  EXPECT_EQ(guard_share(), 50U);
  for (const unsigned percent : {0U, 1U, 33U, 50U, 100U}) {
    ASSERT_TRUE(set_guard_share(percent));
    EXPECT_EQ(guard_share(), percent);
    EXPECT_EQ(guards().protections_max, system_mappings_max() * percent / 100 / 2);
  }
  EXPECT_EQ(set_guard_share(101).error(), error_from(EINVAL));
  EXPECT_EQ(guard_share(), 100U);
}

TEST_F(GuardTest, WhereTheSystemDoesNotSayHowManyItAllowsItsUsualNumberIsTaken) {
  for (const call failing : {call::open, call::read}) {
    fault::arm(failing, 1, EACCES);
    ASSERT_TRUE(set_guard_share(100));
    EXPECT_TRUE(fault::fired());
    EXPECT_EQ(guards().protections_max, 65'530U / 2);
  }
}

TEST_F(GuardTest, AUsedUpShareIsAnErrorUntilAGuardIsRemoved) {
  without_markers();
  ASSERT_TRUE(set_guard_share(0));
  EXPECT_EQ(install_guard(page(4), {page_size}).error(), error_from(ENOMEM));
  page(4)[0] = 1;  // as before
  EXPECT_EQ(guards().protections, 0U);
  ASSERT_TRUE(set_guard_share(50));
  ASSERT_TRUE(install_guard(page(4), {page_size}));
  ASSERT_TRUE(set_guard_share(0));
  EXPECT_EQ(install_guard(page(8), {page_size}).error(), error_from(ENOMEM)) << "one more than the new share";
  remove_guard(page(4), {page_size}, guard_kind::protection);
  EXPECT_EQ(install_guard(page(8), {page_size}).error(), error_from(ENOMEM));
}

TEST_F(GuardTest, AFailedProtectionIsAnErrorAndNotCounted) {
  fault::arm(call::any, 1, EACCES, true);
  EXPECT_EQ(install_guard(page(4), {page_size}).error(), error_from(EACCES));
  fault::arm(call::guard, 1, ENOMEM);
  EXPECT_EQ(install_guard(page(4), {page_size}).error(), error_from(ENOMEM));
  EXPECT_EQ(guards().protections, 0U);
  page(4)[0] = 1;
}

TEST_F(GuardTest, ThreadsNeverPassTheShareTogether) {
  without_markers();
  ASSERT_TRUE(set_guard_share(50));
  const std::size_t most = guards().protections_max;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread, most] {
      for (int round = 0; round < 200; ++round) {
        const auto kind = install_guard(page(4 + 8 * thread), {page_size});
        EXPECT_TRUE(kind);
        EXPECT_LE(guards().protections, most);
        remove_guard(page(4 + 8 * thread), {page_size}, *kind);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(guards().protections, 0U);
}

TEST(GuardDeathTest, ShareInTheEnvironmentIsRead) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto share_with = [](const char* text) {
    ::setenv("LARDER_GUARD_SHARE", text, 1);
    std::_Exit(static_cast<int>(guard_share()));
  };
  EXPECT_EXIT(share_with("7"), testing::ExitedWithCode(7), "");
  for (const char* wrong : {"101", "-1", "ten", "5%", ""}) EXPECT_DEATH(share_with(wrong), "LARDER_GUARD_SHARE");
}

}  // namespace
}  // namespace larder::os

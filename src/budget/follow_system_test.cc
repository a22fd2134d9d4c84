// SPDX-License-Identifier: Apache-2.0
//
// Roots that follow the limit and the pressure of the system.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "budget/page_daemon.h"
#include "budget/page_daemon_test.h"
#include "tests/support/eventually.h"

namespace larder {
namespace {

using tests::eventually;
using kind = budget_event::kind;

// In a forked child, for a process looks for its group once: with these files in the place of the system's.
class FollowingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("larder-follow-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    put("groups", "0::/\n");
    put("mounts", "29 23 0:26 / " + folder_.string() + " rw - cgroup2 cgroup2 rw\n");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void put(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }
  void in_child(const std::function<bool()>& holds) const {
    const pid_t child = ::fork();
    if (child == 0) {
      budget::page_daemon::system_files() = {(folder_ / "groups").string(), (folder_ / "mounts").string(),
                                             (folder_ / "none").string()};
      ::_exit(holds() ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  std::filesystem::path folder_;
};

TEST_F(FollowingTest, TheLimitIsNineTenthsOfTheGroups) {
  put("memory.max", "1000\n");
  in_child([] {
    const memory_budget budget("budget", {.follows_system = true});
    const memory_budget lower("lower", {.limit = 500_B, .follows_system = true});
    const memory_budget deaf("deaf", {.limit = 5000_B});
    return budget.limit() == 900_B && lower.limit() == 500_B && deaf.limit() == 5000_B;
  });
}

TEST_F(FollowingTest, TheLimitFollowsTheGroupsAtRunTime) {
  put("memory.max", "100000\n");
  in_child([this] {
    memory_budget budget("budget", {.follows_system = true});
    store pages(budget, reclaim_stage::clean_pages);
    pages.fill(80'000_B);
    put("memory.max", "50000\n");
    if (!eventually([&] { return budget.limit() == 45'000_B && budget.used() <= 45'000_B; })) return false;
    put("memory.max", "max\n");
    if (!eventually([&] { return budget.limit() == unlimited; })) return false;
    // The user's own limit counts as well, and the system's comes back.
    if (!budget.set_limit(70'000_B) || budget.limit() != 70'000_B) return false;
    return true;
  });
}

TEST_F(FollowingTest, UsersLimitAndTheSystemsBothHold) {
  put("memory.max", "10000\n");
  in_child([] {
    memory_budget budget("budget", {.limit = 5000_B, .follows_system = true});
    return budget.set_limit(20'000_B) && budget.limit() == 9000_B && budget.wanted_limit() == 9000_B &&
           budget.set_limit(8000_B) && budget.limit() == 8000_B;
  });
}

TEST_F(FollowingTest, PressureOfTheSystemTakesAPart) {
  put("memory.max", "max\n");
  in_child([] {
    memory_budget budget("budget", {.follows_system = true});
    memory_budget deaf("deaf", {});
    const listener heard(budget);
    store arrays(budget, reclaim_stage::last_resort);
    store others(deaf, reclaim_stage::clean_pages);
    arrays.fill(16'000_B);
    others.fill(16'000_B);
    budget::page_daemon::of_process().note_pressure();
    return eventually([&] { return arrays.held == 15'000; }) && heard.count(kind::system_pressure) == 1 &&
           heard.all().front().wanted == 1000_B && others.held == 16'000;
  });
}

TEST(FollowingDeathTest, OnlyARootFollowsTheSystem) {
  memory_budget root("root");
  EXPECT_DEATH(memory_budget("child", {.follows_system = true}, &root),
               "budget \"child\" is no root, and so cannot follow the system");
}

}  // namespace
}  // namespace larder

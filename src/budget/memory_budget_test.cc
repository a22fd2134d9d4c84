// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <cstdlib>
#include <latch>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>
#include <larder/stats.h>

#include "tests/support/model_random.h"

namespace larder {
namespace {

TEST(MemoryBudgetTest, AdmitsUpToTheLimitAndNotAByteMore) {
  memory_budget budget("exact", {.limit = 100_B});
  EXPECT_TRUE(budget.try_charge(60_B));
  EXPECT_FALSE(budget.try_charge(41_B));
  EXPECT_TRUE(budget.try_charge(40_B));
  EXPECT_FALSE(budget.try_charge(1_B));
  EXPECT_EQ(budget.used(), 100_B);
  budget.release(1_B);
  EXPECT_TRUE(budget.try_charge(1_B));
  budget.audit();
  budget.release(100_B);
  EXPECT_EQ(budget.used(), 0_B);
}

TEST(MemoryBudgetTest, HasNoLimitUnlessTold) {
  memory_budget budget("free");
  EXPECT_EQ(budget.limit(), unlimited);
  EXPECT_TRUE(budget.try_charge(unlimited));
  EXPECT_FALSE(budget.try_charge(1_B));
  EXPECT_FALSE(budget.try_charge({~std::uint64_t{0}})) << "an amount that would wrap round";
  budget.release(unlimited);
  memory_budget beyond("beyond", {.limit = {~std::uint64_t{0}}});
  EXPECT_EQ(beyond.limit(), unlimited);
}

TEST(MemoryBudgetTest, TellsWhatItWasMadeOf) {
  memory_budget parent("parent", {.limit = 10_MiB, .reserve = 1_MiB});
  memory_budget child("child", {.limit = 4_MiB}, &parent);
  EXPECT_EQ(parent.name(), "parent");
  EXPECT_EQ(parent.limit(), 10_MiB);
  EXPECT_EQ(parent.reserve(), 1_MiB);
  EXPECT_EQ(parent.parent(), nullptr);
  EXPECT_EQ(child.parent(), &parent);
  EXPECT_EQ(child.reserve(), 0_B);
  EXPECT_FALSE(child.has_waiters());
}

TEST(MemoryBudgetTest, ChildsChargeIsChargedToAllAbove) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget middle("middle", {.limit = 80_B}, &root);
  memory_budget leaf("leaf", {.limit = 50_B}, &middle);
  memory_budget other("other", {}, &root);
  EXPECT_TRUE(leaf.try_charge(30_B));
  EXPECT_TRUE(other.try_charge(20_B));
  EXPECT_EQ(leaf.used(), 30_B);
  EXPECT_EQ(middle.used(), 30_B);
  EXPECT_EQ(root.used(), 50_B);
  root.audit();
  leaf.release(30_B);
  other.release(20_B);
  EXPECT_EQ(root.used(), 0_B);
}

TEST(MemoryBudgetTest, RefusalAnywhereAboveLeavesNothingCharged) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget middle("middle", {.limit = 200_B}, &root);
  memory_budget leaf("leaf", {.limit = 300_B}, &middle);
  ASSERT_TRUE(root.try_charge(60_B));
  EXPECT_FALSE(leaf.try_charge(41_B));
  EXPECT_EQ(leaf.used(), 0_B);
  EXPECT_EQ(middle.used(), 0_B);
  EXPECT_EQ(root.used(), 60_B);
  EXPECT_TRUE(leaf.try_charge(40_B));
  leaf.release(40_B);
  root.release(60_B);
}

TEST(MemoryBudgetTest, PeakIsTheMostThatWasEverCharged) {
  memory_budget root("root", {.limit = 100_B});
  memory_budget leaf("leaf", {}, &root);
  ASSERT_TRUE(leaf.try_charge(70_B));
  EXPECT_FALSE(leaf.try_charge(31_B));
  leaf.release(70_B);
  ASSERT_TRUE(root.try_charge(20_B));
  EXPECT_EQ(leaf.peak(), 70_B);
  EXPECT_EQ(root.peak(), 70_B) << "a refused charge is no peak";
  root.release(20_B);
}

TEST(MemoryBudgetTest, ReserveIsNotForEveryone) {
  memory_budget root("root", {.limit = 100_B, .reserve = 30_B});
  memory_budget leaf("leaf", {}, &root);
  EXPECT_FALSE(leaf.try_charge(71_B));
  EXPECT_TRUE(leaf.try_charge(70_B));
  EXPECT_FALSE(root.try_charge(1_B));
  leaf.release(70_B);
}

// KF-47: what can never be met is refused at once, by a node above too, and whatever is free.
TEST(MemoryBudgetTest, ChargeThatNeverFitsFailsAtOnce) {
  memory_budget root("root", {.limit = 100_B, .reserve = 10_B});
  memory_budget leaf("leaf", {.limit = 200_B}, &root);
  EXPECT_EQ(leaf.charge(91_B).error(), error_from(ENOMEM));
  EXPECT_EQ(leaf.charge(201_B).error(), error_from(ENOMEM));
  EXPECT_EQ(leaf.charge({~std::uint64_t{0}}).error(), error_from(ENOMEM));
  EXPECT_EQ(root.used(), 0_B);
  EXPECT_EQ(leaf.waits() + root.waits(), 0U);
  EXPECT_FALSE(root.has_waiters());
  ASSERT_TRUE(leaf.charge(90_B));
  leaf.release(90_B);
}

TEST(MemoryBudgetTest, ChargeWithRoomIsNoWait) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.charge(100_B, time_point{})) << "not even a deadline long past matters";
  EXPECT_EQ(budget.waits(), 0U);
  budget.release(100_B);
}

TEST(MemoryBudgetTest, BudgetChargeGivesBackWhenItGoes) {
  memory_budget budget("budget", {.limit = 100_B});
  ASSERT_TRUE(budget.try_charge(30_B));
  {
    budget_charge held(budget, 30_B);
    EXPECT_EQ(held.amount(), 30_B);
    budget_charge moved(std::move(held));
    held.reset();
    EXPECT_EQ(budget.used(), 30_B) << "what was moved from holds nothing";
    ASSERT_TRUE(budget.try_charge(20_B));
    budget_charge over(budget, 20_B);
    over = std::move(moved);
    EXPECT_EQ(budget.used(), 30_B) << "assignment gives back what was there";
  }
  EXPECT_EQ(budget.used(), 0_B);
}

// KF-48: used never passes a limit, at no instant and at no level, and all comes back.
TEST(MemoryBudgetTest, NoLevelEverPassesItsLimitUnderManyThreads) {
  memory_budget root("root", {.limit = 1'000_B, .reserve = 100_B});
  memory_budget left("left", {.limit = 700_B}, &root);
  memory_budget right("right", {.limit = 700_B}, &root);
  memory_budget leaf("leaf", {.limit = 300_B}, &left);
  const std::array<memory_budget*, 4> budgets{&root, &left, &right, &leaf};
  std::atomic<bool> stop{false};
  std::atomic<int> passed{0};
  std::thread sampler([&] {
    while (!stop) {
      for (memory_budget* budget : budgets) {
        if (budget->used() > budget->limit() - budget->reserve()) ++passed;
      }
    }
  });
  std::vector<std::thread> threads;
  std::latch begin(3);
  for (unsigned i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      tests::model_random random(i);
      begin.arrive_and_wait();
      std::array<std::pair<memory_budget*, bytes>, 8> held{};
      for (int round = 0; round < 300'000; ++round) {
        auto& slot = held[random.below(held.size())];
        if (slot.first != nullptr) {
          slot.first->release(slot.second);
          slot.first = nullptr;
        } else {
          memory_budget* budget = budgets[random.below(budgets.size())];
          const bytes amount{random.between(1, 200)};
          if (budget->try_charge(amount)) slot = {budget, amount};
        }
      }
      for (auto& [budget, amount] : held) {
        if (budget != nullptr) budget->release(amount);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  sampler.join();
  EXPECT_EQ(passed, 0);
  for (memory_budget* budget : budgets) {
    budget->audit();
    EXPECT_EQ(budget->used(), 0_B);
    EXPECT_LE(budget->peak(), budget->limit());
    EXPECT_GE(budget->peak(), 150_B) << "the threads met";
  }
}

std::map<std::string, std::uint64_t> figures_of(const std::string& component) {
  std::map<std::string, std::uint64_t> figures;
  for_each_stat([&](const stat& figure) {
    if (figure.component == component) figures[std::string(figure.name)] = figure.value;
  });
  return figures;
}

TEST(MemoryBudgetTest, ItsFiguresAreShown) {
  {
    memory_budget budget("shown", {.limit = 100_B});
    ASSERT_TRUE(budget.try_charge(30_B));
    budget.release(10_B);
    std::map<std::string, std::uint64_t> expected{
        {"used_bytes", 20}, {"peak_bytes", 30},   {"limit_bytes", 100},         {"wanted_limit_bytes", 100},
        {"waits", 0},       {"daemon_rounds", 0}, {"daemon_reclaimed_bytes", 0}};
    for (const char* kind : {"live_objects", "magazines", "free_objects", "empty_slabs", "stacks", "handles",
                             "clean_pages", "dirty_pages", "metadata"}) {
      expected[std::string(kind) + "_bytes"] = 0;
    }
    expected["other_bytes"] = 20;
    EXPECT_EQ(figures_of("memory_budget/shown"), expected);
    budget.release(20_B);
  }
  EXPECT_TRUE(figures_of("memory_budget/shown").empty());
}

TEST(MemoryBudgetTest, FiguresAreShownWhileBudgetsComeAndGo) {
  std::atomic<bool> stop{false};
  std::thread visitor([&] {
    while (!stop) for_each_stat([](const stat&) {});
  });
  memory_budget root("root");
  for (int i = 0; i < 5'000; ++i) {
    memory_budget brief("brief", {.limit = 1_MiB}, &root);
    ASSERT_TRUE(brief.try_charge(1_B));
    brief.release(1_B);
  }
  stop = true;
  visitor.join();
}

TEST(MemoryBudgetDeathTest, MisuseNamesTheBudget) {
  EXPECT_DEATH(
      {
        memory_budget budget("leaky", {.limit = 100_B});
        (void)budget.try_charge(7_B);
      },
      "\"leaky\" destroyed while 7 bytes are charged");
  EXPECT_DEATH(
      {
        memory_budget budget("poor", {.limit = 100_B});
        (void)budget.try_charge(7_B);
        budget.release(8_B);
      },
      "\"poor\": 8 bytes released, but only 7 are charged");
  EXPECT_DEATH(
      {
        auto parent = std::make_unique<memory_budget>("parent");
        const memory_budget child("child", {}, parent.get());
        parent.reset();
      },
      "\"parent\" destroyed while it has 1 children");
  EXPECT_DEATH(memory_budget("odd", {.limit = 1_B, .reserve = 2_B}), "\"odd\": the reserve of 2 bytes is more");
}

TEST(MemoryBudgetDeathTest, ProcessBudgetTakesItsLimitFromTheEnvironment) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // each starts the program anew, before its first use
  const auto limit_given = [](const char* text) {
    if (text == nullptr) {
      ::unsetenv("LARDER_MEMORY_LIMIT");
    } else {
      ::setenv("LARDER_MEMORY_LIMIT", text, 1);
    }
    const memory_budget& process = memory_budget::process();
    if (&process != &memory_budget::process() || process.name() != "process") std::exit(1);
    return process.limit();
  };
  EXPECT_EXIT(std::exit(limit_given("16M") == 16_MiB ? 0 : 2), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(std::exit(limit_given(nullptr) == unlimited ? 0 : 2), testing::ExitedWithCode(0), "");
  EXPECT_DEATH(limit_given("lots"), "LARDER_MEMORY_LIMIT is \"lots\": expected a number of bytes");
}

TEST(ParseBytesTest, ReadsNumbersAndUnits) {
  const std::vector<std::pair<std::string_view, bytes>> good{{"0", 0_B},
                                                             {"1234", 1'234_B},
                                                             {"600K", 600_KiB},
                                                             {"600k", 600_KiB},
                                                             {"16M", 16_MiB},
                                                             {"16MiB", 16_MiB},
                                                             {"16MB", 16_MiB},
                                                             {"1G", 1_GiB},
                                                             {"2T", 2'048_GiB},
                                                             {"007", 7_B},
                                                             {"9223372036854775807", unlimited},
                                                             {"8388607T", 1_GiB * 1'024 * 8'388'607}};
  for (const auto& [text, expected] : good) {
    const auto parsed = parse_bytes(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, expected) << text;
  }
}

TEST(ParseBytesTest, RefusesWhatIsNoAmount) {
  for (const std::string_view text : {"", " ", "M", "-1", "+1", " 1", "1 ", "1 M", "1.5M", "0x10", "16Q", "16MX",
                                      "16Mi", "16MBB", "1e3", "16M ", "16,000", "lots"}) {
    EXPECT_EQ(parse_bytes(text).error(), error_from(EINVAL)) << "\"" << text << "\"";
  }
  for (const std::string_view text :
       {"9223372036854775808", "99999999999999999999999", "8388608T", "18014398509481984K"}) {
    EXPECT_EQ(parse_bytes(text).error(), error_from(ERANGE)) << "\"" << text << "\"";
  }
}

TEST(FormatBytesTest, GivesTheShortestExactForm) {
  EXPECT_EQ(format_bytes(0_B), "0");
  EXPECT_EQ(format_bytes(1'234_B), "1234");
  EXPECT_EQ(format_bytes(600_KiB), "600K");
  EXPECT_EQ(format_bytes(1'536_KiB), "1536K");
  EXPECT_EQ(format_bytes(16_MiB), "16M");
  EXPECT_EQ(format_bytes(1_GiB * 4'096), "4T");
  EXPECT_EQ(format_bytes(1_GiB * 1'024 * 2'048), "2048T");
}

TEST(FormatBytesTest, IsReadBackExactly) {
  tests::model_random random;
  for (int i = 0; i < 20'000; ++i) {
    const bytes amount{(random.below(unlimited.count) >> random.below(63)) << random.below(12) & unlimited.count};
    const auto parsed = parse_bytes(format_bytes(amount));
    ASSERT_TRUE(parsed) << amount.count;
    ASSERT_EQ(*parsed, amount);
  }
}

}  // namespace
}  // namespace larder

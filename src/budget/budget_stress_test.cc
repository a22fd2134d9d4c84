// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "budget/ticket.h"
#include "os/clock.h"
#include "tests/support/model_random.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

// What was put in may be reclaimed: a cache as the budget sees it.
class larder_of_bytes final : public reclaimer {
 public:
  larder_of_bytes(memory_budget& budget, reclaim_stage stage) : budget_(budget) { budget_.add_reclaimer(*this, stage); }
  ~larder_of_bytes() {
    budget_.remove_reclaimer(*this);
    reclaim(unlimited);
  }
  // Takes over a charge of its budget.
  void put(bytes amount) {
    held_ += amount.count;
    budget_.note_reclaimable();
  }
  bytes reclaim(bytes wanted) override {
    std::uint64_t held = held_;
    std::uint64_t given = std::min(held, wanted.count);
    while (!held_.compare_exchange_weak(held, held - given)) given = std::min(held, wanted.count);
    budget_.release({given});
    return {given};
  }

 private:
  memory_budget& budget_;
  std::atomic<std::uint64_t> held_{0};
};

// Everything at once: charges with short deadlines and with none, attempts, tickets dropped in every state, a reclaimer
// at each level; a sampler watches the limits. Whoever waits without a deadline must come through.
TEST(BudgetStressTest, EverybodyComesThroughAndEverythingComesBack) {
  constexpr int rounds = 3'000;
  memory_budget root("root", {.limit = 1'000_B, .reserve = 50_B});
  memory_budget left("left", {.limit = 600_B}, &root);
  memory_budget right("right", {.limit = 700_B}, &root);
  memory_budget leaf("leaf", {.limit = 300_B, .reserve = 20_B}, &left);
  const std::array<memory_budget*, 4> budgets{&root, &left, &right, &leaf};
  {
    std::vector<std::unique_ptr<larder_of_bytes>> caches;
    for (memory_budget* budget : budgets) {
      caches.push_back(std::make_unique<larder_of_bytes>(*budget, reclaim_stage::clean_pages));
    }
    std::atomic<bool> stop{false};
    std::atomic<int> passed{0};
    std::thread sampler([&] {
      while (!stop) {
        for (memory_budget* budget : budgets) {
          if (budget->used() > budget->limit()) ++passed;
        }
        std::this_thread::sleep_for(20us);
      }
    });
    std::array<std::atomic<int>, 4> outcomes{};  // timed out, charged, tried, dropped
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        tests::model_random random(i);
        // A busy machine may run the threads one after another, and then nobody waits: on, until somebody has.
        for (int round = 0; round < rounds || (outcomes[0] == 0 && round < 1'000 * rounds); ++round) {
          const std::size_t which = random.below(budgets.size());
          memory_budget& budget = *budgets[which];
          const bytes amount{random.one_in(10) ? random.between(200, 280) : random.between(1, 80)};
          bool charged = false;
          switch (random.below(5)) {
            case 0:
              charged = budget.try_charge(amount);
              ++outcomes[2];
              break;
            case 1:
            case 2:
              charged =
                  static_cast<bool>(budget.charge(amount, os::now() + std::chrono::microseconds(random.below(60))));
              ++outcomes[charged ? 1 : 0];
              break;
            case 3: {
              budget_ticket ticket(budget, amount);
              EXPECT_TRUE(ticket.begin());
              if (random.one_in(2)) ticket.granted();
              if (random.one_in(2)) std::this_thread::yield();
              ++outcomes[3];
              break;
            }
            default:
              charged = static_cast<bool>(budget.charge(amount));
              EXPECT_TRUE(charged);
              ++outcomes[1];
          }
          if (!charged) continue;
          if (random.one_in(2)) std::this_thread::yield();
          if (random.one_in(2)) {
            caches[which]->put(amount);
          } else {
            budget.release(amount);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    stop = true;
    sampler.join();
    EXPECT_EQ(passed, 0);
    for (const auto& outcome : outcomes) EXPECT_GT(outcome, 0);
    EXPECT_FALSE(root.has_waiters());
    for (memory_budget* budget : budgets) budget->audit();
  }
  for (memory_budget* budget : budgets) EXPECT_EQ(budget->used(), 0_B);
}

// A grant and a deadline meet: each waiter has either its memory or its error, and nothing is lost between.
TEST(BudgetStressTest, GrantsThatMeetDeadlinesAreNotLost) {
  memory_budget budget("budget", {.limit = 10_B});
  std::atomic<std::uint64_t> granted{0};
  std::atomic<std::uint64_t> timed_out{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      tests::model_random random(i);
      for (int round = 0; round < 5'000; ++round) {
        const auto charged = budget.charge(10_B, os::now() + std::chrono::microseconds(random.below(100)));
        if (charged) {
          ++granted;
          if (random.one_in(4)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(50)));
          budget.release(10_B);
        } else {
          EXPECT_EQ(charged.error(), error_from(ETIMEDOUT));
          ++timed_out;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted + timed_out, 20'000U);
  EXPECT_GT(granted, 0U);
  EXPECT_GT(timed_out, 0U);
  EXPECT_EQ(budget.used(), 0_B);
  EXPECT_FALSE(budget.has_waiters());
}

// Releases race with entries into the queue: with no deadline, one lost wake-up would hang.
TEST(BudgetStressTest, NoReleaseIsLostToATicketThatEnters) {
  memory_budget root("root", {.limit = 2_B});
  memory_budget leaf("leaf", {.limit = 1_B}, &root);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      memory_budget& budget = i % 2 == 0 ? root : leaf;
      for (int round = 0; round < 10'000; ++round) {
        EXPECT_TRUE(budget.charge(1_B));
        budget.release(1_B);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(root.used(), 0_B);
  root.audit();
}

// An attempt that the root refuses fills the child for a moment, and may turn a ticket away there.
TEST(BudgetStressTest, RefusedAttemptLeavesNoTicketTurnedAway) {
  memory_budget root("root", {.limit = 10_B});
  memory_budget leaf("leaf", {.limit = 5_B}, &root);
  ASSERT_TRUE(root.try_charge(8_B));
  std::atomic<bool> stop{false};
  std::thread attempts([&] {
    while (!stop) EXPECT_FALSE(leaf.try_charge(4_B));
  });
  for (int round = 0; round < 100'000; ++round) {
    const auto charged = leaf.charge(2_B, os::now() + 5s);
    EXPECT_TRUE(charged) << "in round " << round;
    if (!charged) break;
    leaf.release(2_B);
  }
  stop = true;
  attempts.join();
  root.release(8_B);
}

}  // namespace
}  // namespace larder

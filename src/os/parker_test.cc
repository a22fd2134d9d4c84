// SPDX-License-Identifier: Apache-2.0
#include "os/parker.h"

#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/mutex.h"
#include "os/clock.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

class ParkerTest : public testing::Test {
 protected:
  // Takes the token that another test of the process may have left.
  ParkerTest() { (void)parker::current().park_until(now()); }
};

TEST_F(ParkerTest, UnparkBeforeParkIsKept) {
  parker& mine = parker::current();
  mine.unpark();
  mine.park();
  mine.unpark();
  EXPECT_TRUE(mine.park_until(now() + 1h));
}

TEST_F(ParkerTest, HoldsAtMostOneToken) {
  parker& mine = parker::current();
  for (int i = 0; i < 3; ++i) mine.unpark();
  EXPECT_TRUE(mine.park_until(now()));
  EXPECT_FALSE(mine.park_until(now()));
}

TEST_F(ParkerTest, TokenCountsAlsoAfterTheDeadline) {
  parker& mine = parker::current();
  mine.unpark();
  EXPECT_TRUE(mine.park_until(now() - 1h));
  EXPECT_FALSE(mine.park_until(now() - 1h));
}

TEST_F(ParkerTest, SleepsUntilTheDeadlineAndNotLess) {
  const time_point deadline = now() + 20ms;
  EXPECT_FALSE(parker::current().park_until(deadline));
  EXPECT_GE(now(), deadline);
}

TEST_F(ParkerTest, UnparkFromAnotherThreadWakesAndPublishes) {
  parker& mine = parker::current();
  int message = 0;  // plain: the token must publish it
  std::thread other([&] {
    std::this_thread::sleep_for(10ms);
    message = 42;
    mine.unpark();
  });
  mine.park();
  EXPECT_EQ(message, 42);
  other.join();
}

// Pairs of threads that hand a plain counter to and fro: a lost token hangs, a missing order is a race.
TEST_F(ParkerTest, ManyThreadsPlayPingPong) {
  constexpr int rounds = 3'000;
  struct table {
    std::array<std::atomic<parker*>, 2> players{};
    std::atomic<int> turn{0};
    int count = 0;
  };
  std::array<table, 3> tables;
  std::vector<std::thread> threads;
  for (table& at : tables) {
    for (std::size_t side = 0; side < 2; ++side) {
      threads.emplace_back([&at, side] {
        at.players[side] = &parker::current();
        while (at.players[1 - side] == nullptr) std::this_thread::yield();
        for (int round = 0; round < rounds; ++round) {
          while (at.turn != static_cast<int>(side)) parker::current().park();
          ++at.count;
          at.turn = static_cast<int>(1 - side);
          at.players[1 - side].load()->unpark();
        }
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const table& at : tables) EXPECT_EQ(at.count, 2 * rounds);
}

// Short deadlines race with tokens: whoever waits sees every number that was announced before a token.
TEST_F(ParkerTest, NoTokenIsLostToADeadlineThatPasses) {
  constexpr unsigned most = 20'000;
  parker& mine = parker::current();
  std::atomic<unsigned> announced{0};
  std::atomic<unsigned> seen{0};
  std::thread other([&] {
    for (unsigned number = 1; number <= most; ++number) {
      announced = number;
      mine.unpark();
      while (seen != number) std::this_thread::yield();
    }
  });
  unsigned timeouts = 0;
  while (seen != most) {
    const unsigned looked = announced;
    if (looked != seen) {
      seen = looked;
    } else if (seen % 2 == 0) {
      mine.park();  // no deadline: only the token ends it
    } else {
      timeouts += mine.park_until(now() + 5us) ? 0U : 1U;
    }
  }
  other.join();
  RecordProperty("timeouts", static_cast<int>(timeouts));
  mine.park_until(now());  // takes what is left over
}

TEST_F(ParkerTest, SignalDoesNotEndTheSleep) {
  struct sigaction handle {};
  struct sigaction before {};
  handle.sa_handler = [](int) {};  // without SA_RESTART: the system call ends
  ASSERT_EQ(::sigaction(SIGUSR2, &handle, &before), 0);
  const pthread_t sleeper = ::pthread_self();
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      ::pthread_kill(sleeper, SIGUSR2);
      std::this_thread::sleep_for(2ms);
    }
  });
  const time_point deadline = now() + 30ms;
  EXPECT_FALSE(parker::current().park_until(deadline));
  EXPECT_GE(now(), deadline);
  stop = true;
  other.join();
  ::sigaction(SIGUSR2, &before, nullptr);
}

TEST_F(ParkerTest, ThreadsOwnParkerStaysTheSame) {
  EXPECT_EQ(&parker::current(), &parker::current());
  parker* other = nullptr;
  std::thread([&] { other = &parker::current(); }).join();
  EXPECT_NE(other, &parker::current());
}

TEST_F(ParkerTest, ParkersOfEndedThreadsAreUsedAgain) {
  std::set<parker*> seen;
  for (int i = 0; i < 50; ++i) {
    std::thread([&] { seen.insert(&parker::current()); }).join();
  }
  EXPECT_EQ(seen.size(), 1U);
}

TEST_F(ParkerTest, LateUnparkOfAnEndedThreadCostsTheNextOwnerALook) {
  parker* ended = nullptr;
  std::thread([&] { ended = &parker::current(); }).join();
  ended->unpark();
  std::thread([&] {
    ASSERT_EQ(&parker::current(), ended);
    EXPECT_TRUE(ended->park_until(now()));
    EXPECT_FALSE(ended->park_until(now()));
  }).join();
}

class counting_parker final : public parker {
 public:
  void park() override { ++parks; }
  bool park_until(time_point) override { return ++parks != 0; }
  void unpark() override { ++unparks; }
  bool is_parked() const override { return false; }
  int parks = 0;
  int unparks = 0;
};

TEST_F(ParkerTest, AnotherMayTakeTheThreadsPlace) {
  parker& own = parker::current();
  counting_parker task;
  parker::set_current(&task);
  parker::current().park();
  parker::current().unpark();
  parker::set_current(nullptr);
  EXPECT_EQ(&parker::current(), &own);
  EXPECT_EQ(task.parks, 1);
  EXPECT_EQ(task.unparks, 1);
}

TEST(ParkerDeathTest, ParkingWithALockHeldDies) {
#ifdef LARDER_DEBUG_CHECKS
  base::mutex guard(base::lock_rank::server);
  const base::lock locked(guard);
  EXPECT_DEATH(parker::current().park_until(now()), "parking while a lock of rank");
#else
  GTEST_SKIP() << "checked in builds with LARDER_DEBUG_CHECKS";
#endif
}

}  // namespace
}  // namespace larder::os

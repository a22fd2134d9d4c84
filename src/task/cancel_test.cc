// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/channel.h>
#include <larder/io.h>
#include <larder/runtime.h>
#include <larder/select.h>
#include <larder/semaphore.h>
#include <larder/sync.h>

#include "os/file.h"
#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

time_point in_an_hour() { return std::chrono::steady_clock::now() + 1h; }

class CancelTest : public tests::runtime_over_workers {
 protected:
  // A task that waits is cancelled: before it waits, and while it does. What it holds is cleaned up, and it ends early.
  void is_cut_short(const std::function<void()>& wait) {
    for (const bool while_it_waits : {false, true}) {
      std::atomic<bool> may_wait{false};
      std::atomic<bool> cleaned_up{false};
      std::atomic<bool> went_on{false};
      task waiting = runtime_->spawn([&] {
        struct cleaner {
          std::atomic<bool>& done;
          ~cleaner() {
            this_task::sleep_for(100us);  // cleaning up may wait
            done = true;
          }
        } const cleaned{cleaned_up};
        while (!may_wait) std::this_thread::yield();
        wait();
        went_on = true;
      });
      if (while_it_waits) {
        may_wait = true;
        std::this_thread::sleep_for(2ms);  // it is waiting by now, as a rule
        waiting.cancel();
      } else {
        waiting.cancel();
        may_wait = true;
      }
      EXPECT_FALSE(waiting.join()) << (while_it_waits ? "while it waits" : "before it waits");
      EXPECT_TRUE(cleaned_up);
      EXPECT_FALSE(went_on);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Over, CancelTest, testing::Values(1, 2, 4), tests::name_of_workers);

// A pair of connected stream sockets, non-blocking.
struct socket_pair {
  socket_pair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0); }
  ~socket_pair() {
    for (const int each : ends) ::close(each);
  }
  std::array<int, 2> ends{-1, -1};
};

TEST_P(CancelTest, ASleepIsCutShort) {
  is_cut_short([] { this_task::sleep_until(in_an_hour()); });
}

TEST_P(CancelTest, AYieldIsCutShort) {
  is_cut_short([] {
    for (;;) this_task::yield();
  });
}

TEST_P(CancelTest, AJoinIsCutShortAndTheOtherTaskCanBeJoinedStill) {
  semaphore may_end(0);
  task other = runtime_->spawn([&] { may_end.acquire(); });
  is_cut_short([&] { other.join(); });
  ASSERT_TRUE(other.joinable());
  may_end.release();
  EXPECT_TRUE(other.join());
}

TEST_P(CancelTest, AWaitForAConditionIsCutShortWithItsMutexHeld) {
  mutex guard;
  condition changed;
  is_cut_short([&] {
    std::unique_lock<mutex> held(guard);
    try {
      changed.wait(held);
    } catch (const task::cancelled&) {
      EXPECT_TRUE(held.owns_lock());
      EXPECT_FALSE(guard.try_lock());
      throw;
    }
  });
  EXPECT_TRUE(guard.try_lock());
  guard.unlock();
}

TEST_P(CancelTest, ASemaphoreIsCutShortAndTakesNothing) {
  semaphore units(1);
  is_cut_short([&] { units.acquire(2); });
  EXPECT_EQ(units.units_free(), 1U);
}

TEST_P(CancelTest, ChannelsAndSelectsAreCutShortAndMoveNothing) {
  channel<std::string> empty(1);
  channel<std::string> full(1);
  ASSERT_TRUE(full.try_send("first"));
  is_cut_short([&] { (void)empty.receive(); });
  is_cut_short([&] { (void)full.send("second"); });
  is_cut_short([&] {
    select(no_deadline, on_receive(empty, [](const std::optional<std::string>&) {}),
           on_send(full, "second", [](bool) {}));
  });
  EXPECT_EQ(full.size(), 1U);
  EXPECT_EQ(full.receive(), "first");
  EXPECT_EQ(empty.size(), 0U);
}

TEST_P(CancelTest, LocksWithADeadlineAreCutShort) {
  mutex guard;
  shared_mutex shared;
  guard.lock();
  shared.lock();
  is_cut_short([&] { (void)guard.try_lock_until(in_an_hour()); });
  is_cut_short([&] { (void)shared.try_lock_until(in_an_hour()); });
  is_cut_short([&] { (void)shared.try_lock_shared_until(in_an_hour()); });
  guard.unlock();
  shared.unlock();
}

TEST_P(CancelTest, ReceiveSendAndAcceptAreCutShort) {
  const socket_pair pair;
  std::array<std::byte, 4096> some{};
  is_cut_short([&] { (void)io::receive(pair.ends[0], some); });
  EXPECT_TRUE(io::send(pair.ends[1], std::span(some).first(1)));
  EXPECT_EQ(*io::receive(pair.ends[0], some), 1U) << "the socket is as it was";
  is_cut_short([&] {
    for (;;) (void)io::send(pair.ends[0], some);
  });
  auto listener = os::descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr unnamed{AF_UNIX, {}};
  ASSERT_EQ(::bind(listener.number(), &unnamed, sizeof(sa_family_t)), 0);
  ASSERT_EQ(::listen(listener.number(), 1), 0);
  is_cut_short([&] { (void)io::accept(listener.number()); });
}

// What was received is not lost, and the request ends a later wait.
TEST_P(CancelTest, AReceiveThatHasItsDataIsNotCutShort) {
  const socket_pair pair;
  std::array<std::byte, 16> some{};
  std::atomic<bool> received{false};
  EXPECT_TRUE(io::send(pair.ends[1], std::span(some).first(1)));
  task receiving = runtime_->spawn([&] {
    while (!this_task::cancel_requested()) std::this_thread::yield();
    const auto got = io::receive(pair.ends[0], some);
    received = got && *got == 1;
    this_task::yield();
    ADD_FAILURE() << "the request is lost";
  });
  receiving.cancel();
  EXPECT_FALSE(receiving.join());
  EXPECT_TRUE(received);
}

TEST_P(CancelTest, LocksWithoutADeadlineAreNot) {
  mutex guard;
  std::atomic<bool> locked{false};
  guard.lock();
  task waiting = runtime_->spawn([&] {
    const std::lock_guard<mutex> held(guard);
    locked = true;
    this_task::sleep_until(in_an_hour());
  });
  waiting.cancel();
  std::this_thread::sleep_for(1ms);
  EXPECT_FALSE(waiting.done());
  guard.unlock();
  EXPECT_FALSE(waiting.join());
  EXPECT_TRUE(locked);
}

TEST_P(CancelTest, EachRequestEndsOneWait) {
  semaphore waits(0);
  int ended = 0;
  task stubborn = runtime_->spawn([&] {
    EXPECT_FALSE(this_task::cancel_requested());
    while (ended < 3) {
      try {
        waits.release();
        this_task::sleep_until(in_an_hour());
      } catch (const task::cancelled&) {
        ++ended;
        EXPECT_TRUE(this_task::cancel_requested());
        this_task::yield();  // the request has been heeded
        this_task::throw_if_cancelled();
      }
    }
  });
  for (int i = 0; i < 3; ++i) {
    waits.acquire();
    stubborn.cancel();
  }
  EXPECT_TRUE(stubborn.join()) << "it ran to its end";
  EXPECT_EQ(ended, 3);
}

TEST_P(CancelTest, WhoComputesMayAsk) {
  task computing = runtime_->spawn([] {
    while (!this_task::cancel_requested()) std::this_thread::yield();
    this_task::throw_if_cancelled();
    ADD_FAILURE() << "it went on";
  });
  computing.cancel();
  EXPECT_FALSE(computing.join());
}

TEST_P(CancelTest, AShieldKeepsARequestForLater) {
  std::atomic<bool> shielded_done{false};
  semaphore started(0);
  task shielded = runtime_->spawn([&] {
    {
      const this_task::cancellation_shield outer;
      {
        const this_task::cancellation_shield inner;
        started.release();
        while (!this_task::cancel_requested()) this_task::yield();
      }
      this_task::sleep_for(100us);
      this_task::throw_if_cancelled();
      shielded_done = true;
    }
    this_task::yield();
    ADD_FAILURE() << "the request is lost";
  });
  started.acquire();
  shielded.cancel();
  EXPECT_FALSE(shielded.join());
  EXPECT_TRUE(shielded_done);
}

// A second request comes while the first unwinds the stack: what cleans up must not throw.
TEST_P(CancelTest, NothingIsThrownIntoAnUnwindingStack) {
  semaphore cleaning(0);
  semaphore cancelled_again(0);
  task unwinding = runtime_->spawn([&] {
    struct cleaner {
      semaphore& begins;
      semaphore& goes_on;
      ~cleaner() {
        begins.release();
        goes_on.acquire();
      }
    } const cleaned{cleaning, cancelled_again};
    this_task::sleep_until(in_an_hour());
  });
  unwinding.cancel();
  cleaning.acquire();
  unwinding.cancel();
  cancelled_again.release();
  EXPECT_FALSE(unwinding.join());
}

TEST_P(CancelTest, WhatACancelledTaskThrowsInsteadComesOutOfJoin) {
  task failing = runtime_->spawn([] {
    try {
      this_task::sleep_until(in_an_hour());
    } catch (const task::cancelled&) {
      throw std::runtime_error("could not clean up");
    }
  });
  failing.cancel();
  EXPECT_THROW(failing.join(), std::runtime_error);
}

TEST_P(CancelTest, RunPassesTheRequestOn) {
  std::atomic<bool> inner_cancelled{false};
  semaphore started(0);
  task outer = runtime_->spawn([&] {
    runtime_->run([&] {
      try {
        started.release();
        this_task::sleep_until(in_an_hour());
      } catch (const task::cancelled&) {
        inner_cancelled = true;
        throw;
      }
    });
  });
  started.acquire();
  outer.cancel();
  EXPECT_FALSE(outer.join());
  EXPECT_TRUE(inner_cancelled);
}

// Its stack and parker are another task's by then, which is not cancelled.
TEST_P(CancelTest, ARequestAfterTheEndIsForNobody) {
  for (int i = 0; i < 200 / tests::share; ++i) {
    task ended = runtime_->spawn([] {});
    while (!ended.done()) std::this_thread::yield();
    std::atomic<bool> undisturbed{false};
    task next = runtime_->spawn([&] {
      for (int round = 0; round < 10; ++round) this_task::yield();
      undisturbed = !this_task::cancel_requested();
    });
    ended.cancel();
    EXPECT_TRUE(next.join());
    EXPECT_TRUE(undisturbed);
    EXPECT_TRUE(ended.join());
  }
}

TEST_P(CancelTest, OnAThreadThereIsNothingToCancel) {
  EXPECT_FALSE(this_task::cancel_requested());
  this_task::throw_if_cancelled();
  const this_task::cancellation_shield shield;
  this_task::yield();
}

// Tasks hand units around while others cancel them: none is lost, whoever is cut short.
TEST_P(CancelTest, NothingIsLostWhereverTasksAreCancelled) {
  constexpr std::uint64_t units = 3;
  semaphore shared_units(units);
  channel<int> values(2);
  mutex guard;
  condition changed;
  tests::model_random random;
  for (int round = 0; round < 60 / tests::share + 1; ++round) {
    std::vector<task> tasks;
    for (int i = 0; i < 12; ++i) {
      tasks.push_back(runtime_->spawn([&, i] {
        for (int turn = 0;; ++turn) {
          shared_units.acquire();
          const struct giver {
            semaphore& to;
            ~giver() { to.release(); }
          } given{shared_units};
          if ((i + turn) % 3 == 0) {
            std::unique_lock<mutex> held(guard);
            changed.notify_one();
            (void)changed.wait_until(held, std::chrono::steady_clock::now() + 20us);
          } else if (i % 2 == 0) {
            (void)values.try_send(turn);
            this_task::yield();
          } else {
            (void)values.receive_until(std::chrono::steady_clock::now() + 20us);
          }
        }
      }));
    }
    while (!tasks.empty()) {
      const std::size_t chosen = random.below(tasks.size());
      std::swap(tasks[chosen], tasks.back());
      tasks.back().cancel();
      EXPECT_FALSE(tasks.back().join());
      tasks.pop_back();
    }
    ASSERT_EQ(shared_units.units_free(), units);
    ASSERT_TRUE(guard.try_lock());
    guard.unlock();
  }
}

class CancelDeathTest : public testing::Test {
 protected:
  CancelDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(CancelDeathTest, CancelOfATaskThatIsNotThereDies) {
  EXPECT_DEATH(task().cancel(), "cancel of a task that was joined, detached or moved from");
}

}  // namespace
}  // namespace larder

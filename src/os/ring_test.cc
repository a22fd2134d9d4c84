// SPDX-License-Identifier: Apache-2.0
#include "os/ring.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "os/clock.h"
#include "os/fault.h"
#include "os/memory.h"
#include "os/socket.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

// An operation that remembers its outcome and how often it was told.
struct noted_operation : ring_operation {
  noted_operation() {
    complete = [](ring_operation& self, int told) {
      auto& mine = static_cast<noted_operation&>(self);
      mine.outcome = told;
      ++mine.completions;
      if (mine.then) mine.then();
    };
  }
  int outcome = 0;
  int completions = 0;
  std::function<void()> then;
};

class RingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = ring::create(entries);
    if (!made && (made.error() == error_from(ENOSYS) || made.error() == error_from(EPERM))) {
      GTEST_SKIP() << "no io_uring here: " << made.error().message();
    }
    ASSERT_TRUE(made) << made.error().message();
    ring_ = std::move(*made);
    auto file = open_nameless_file(std::filesystem::temp_directory_path(), 64_KiB);
    ASSERT_TRUE(file);
    file_ = std::move(*file);
    auto pair = socket_pair();
    ASSERT_TRUE(pair);
    near_ = std::move(pair->first);
    far_ = std::move(pair->second);
  }
  void TearDown() override { fault::disarm(); }

  // Runs the ring until the operation is told.
  void run_until(const noted_operation& operation) {
    const time_point patience = now() + 10s;
    while (operation.completions == 0) {
      ASSERT_LT(now(), patience) << "the operation never completed";
      ring_->run(true, patience);
    }
  }
  void say(char letter) const { ASSERT_EQ(::write(far_.number(), &letter, 1), 1); }

  static constexpr unsigned entries = 4;
  std::unique_ptr<ring> ring_;
  descriptor file_;
  descriptor near_;
  descriptor far_;
};

TEST_F(RingTest, WritesSyncsAndReadsBack) {
  std::string first = "left ";
  std::string second = "and right";
  const std::array<iovec, 2> out{iovec{first.data(), first.size()}, iovec{second.data(), second.size()}};
  noted_operation writing;
  ring_->write(file_.number(), out, 100, writing);
  run_until(writing);
  EXPECT_EQ(writing.outcome, 14);
  noted_operation syncing;
  ring_->sync_data(file_.number(), syncing);
  run_until(syncing);
  EXPECT_EQ(syncing.outcome, 0);
  std::string got(14, '?');
  const iovec in{got.data(), got.size()};
  noted_operation reading;
  ring_->read(file_.number(), {&in, 1}, 100, reading);
  run_until(reading);
  EXPECT_EQ(reading.outcome, 14);
  EXPECT_EQ(got, "left and right");
  EXPECT_EQ(writing.completions + syncing.completions + reading.completions, 3);
}

TEST_F(RingTest, ZeroRangeMakesTheRangeReadAsZeros) {
  const std::string text(8192, 'x');
  const iovec out{const_cast<char*>(text.data()), text.size()};
  ASSERT_TRUE(write_at(file_.number(), {&out, 1}, 0));
  noted_operation zeroing;
  ring_->zero_range(file_.number(), 4096, 4096, false, zeroing);
  run_until(zeroing);
  if (zeroing.outcome == -EOPNOTSUPP) GTEST_SKIP() << "the file system cannot";
  EXPECT_EQ(zeroing.outcome, 0);
  std::string got(8192, '?');
  const iovec in{got.data(), got.size()};
  ASSERT_TRUE(read_at(file_.number(), {&in, 1}, 0));
  EXPECT_EQ(got, std::string(4096, 'x') + std::string(4096, '\0'));
}

TEST_F(RingTest, ErrorsArriveAsNegativeNumbers) {
  char letter = 'x';
  const iovec vector{&letter, 1};
  noted_operation reading;
  ring_->read(-1, {&vector, 1}, 0, reading);
  run_until(reading);
  EXPECT_EQ(reading.outcome, -EBADF);
}

TEST_F(RingTest, PollCompletesOnceWithTheEventsThatAreThere) {
  noted_operation writable;
  ring_->poll(near_.number(), POLLOUT, writable);
  run_until(writable);
  EXPECT_NE(writable.outcome & POLLOUT, 0);
  noted_operation readable;
  ring_->poll(near_.number(), POLLIN, readable);
  ring_->run(false, no_deadline);
  EXPECT_EQ(readable.completions, 0) << "nothing to read yet";
  say('a');
  run_until(readable);
  EXPECT_NE(readable.outcome & POLLIN, 0);
  say('b');
  ring_->run(false, no_deadline);
  EXPECT_EQ(readable.completions, 1) << "it asked once";
}

TEST_F(RingTest, AcceptGivesTheNewConnection) {
  char name[] = "/tmp/larder-ring-test-XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const std::string path = std::string(name) + "/socket";
  const auto listener = listen_unix(path);
  ASSERT_TRUE(listener);
  noted_operation accepting;
  ring_->accept(listener->number(), accepting);
  ring_->run(false, no_deadline);
  EXPECT_EQ(accepting.completions, 0);
  const auto client = connect_unix(path);
  ASSERT_TRUE(client);
  run_until(accepting);
  ASSERT_GE(accepting.outcome, 0);
  const descriptor server(accepting.outcome);
  EXPECT_EQ(::send(client->number(), "x", 1, 0), 1);
  char letter = '\0';
  EXPECT_EQ(::recv(server.number(), &letter, 1, 0), 1);
  EXPECT_EQ(letter, 'x');
  std::filesystem::remove_all(name);
}

TEST_F(RingTest, CancelEndsAnOperationEarly) {
  noted_operation waiting;
  ring_->poll(near_.number(), POLLIN, waiting);
  ring_->run(false, no_deadline);
  noted_operation cancelling;
  ring_->cancel(waiting, cancelling);
  run_until(cancelling);
  run_until(waiting);
  EXPECT_EQ(cancelling.outcome, 0);
  EXPECT_EQ(waiting.outcome, -ECANCELED);
  EXPECT_EQ(waiting.completions, 1);
}

TEST_F(RingTest, CancelOfWhatIsOverFindsNothing) {
  noted_operation over;
  ring_->poll(near_.number(), POLLOUT, over);
  run_until(over);
  noted_operation cancelling;
  ring_->cancel(over, cancelling);
  run_until(cancelling);
  EXPECT_EQ(cancelling.outcome, -ENOENT);
  EXPECT_EQ(over.completions, 1);
}

TEST_F(RingTest, SleepEndsAtTheDeadlineAndNotBefore) {
  const time_point deadline = now() + 20ms;
  while (now() < deadline) EXPECT_EQ(ring_->run(true, deadline), 0U);
  EXPECT_LT(now(), deadline + 5s);
  EXPECT_EQ(ring_->run(true, now() - 1h), 0U) << "a deadline that has passed";
}

TEST_F(RingTest, RunWithoutWaitReturnsAtOnce) {
  noted_operation waiting;
  ring_->poll(near_.number(), POLLIN, waiting);
  EXPECT_EQ(ring_->run(false, no_deadline), 0U);
}

TEST_F(RingTest, LookSubmitsAndFinishesWithoutSleeping) {
  noted_operation waiting;
  ring_->poll(near_.number(), POLLIN, waiting);
  for (int i = 0; i < 100; ++i) ring_->look();
  EXPECT_EQ(waiting.completions, 0);
  say('x');
  const time_point patience = now() + 10s;
  while (waiting.completions == 0 && now() < patience) ring_->look();
  EXPECT_EQ(waiting.completions, 1);
  char letter = 'x';
  const iovec vector{&letter, 1};
  noted_operation failing;
  fault::arm(call::read, 1, EIO);
  ring_->read(file_.number(), {&vector, 1}, 0, failing);
  ring_->look();
  EXPECT_EQ(failing.outcome, -EIO);
}

TEST_F(RingTest, WakeBeforeTheSleepEndsIt) {
  ring_->wake();
  EXPECT_GE(ring_->run(true, no_deadline), 1U);
  ring_->run(false, no_deadline);
  std::thread([&] { ring_->wake(); }).join();
  ring_->wake();
  EXPECT_GE(ring_->run(true, no_deadline), 1U);
  while (ring_->run(false, no_deadline) != 0) {
  }
  EXPECT_EQ(ring_->run(true, now() + 5ms), 0U) << "many wakes are one";
}

TEST_F(RingTest, WakeFromAnotherThreadEndsTheSleepEveryTime) {
  constexpr unsigned rounds = 2'000;
  std::atomic<unsigned> announced{0};
  std::atomic<unsigned> seen{0};
  std::thread other([&] {
    for (unsigned number = 1; number <= rounds; ++number) {
      if (number % 500 == 0) std::this_thread::sleep_for(2ms);  // surely asleep
      announced = number;
      ring_->wake();
      while (seen != number) std::this_thread::yield();
    }
  });
  const time_point patience = now() + 30s;
  while (seen != rounds && now() < patience) {
    if (announced != seen) {
      seen = announced.load();
    } else {
      ring_->run(true, patience);
    }
  }
  EXPECT_EQ(seen, rounds) << "a wake was lost";
  seen = rounds;
  other.join();
}

TEST_F(RingTest, MoreOperationsThanEntriesAreUnderWayAtOnce) {
  constexpr std::size_t many = 50 * entries;
  std::vector<noted_operation> operations(many);
  for (noted_operation& each : operations) ring_->poll(near_.number(), POLLIN, each);
  ring_->run(false, no_deadline);
  for (const noted_operation& each : operations) ASSERT_EQ(each.completions, 0);
  say('x');
  for (const noted_operation& each : operations) run_until(each);
  for (const noted_operation& each : operations) {
    EXPECT_EQ(each.completions, 1);
    EXPECT_NE(each.outcome & POLLIN, 0);
  }
}

TEST_F(RingTest, CompletionMayPrepareTheNextOperation) {
  std::array<char, 16> block{};
  const iovec vector{block.data(), block.size()};
  noted_operation chained;
  chained.then = [&] {
    if (chained.completions < 100) ring_->read(file_.number(), {&vector, 1}, 0, chained);
  };
  ring_->read(file_.number(), {&vector, 1}, 0, chained);
  const time_point patience = now() + 10s;
  while (chained.completions < 100 && now() < patience) ring_->run(true, patience);
  EXPECT_EQ(chained.completions, 100);
}

TEST_F(RingTest, InjectedFailureIsToldByTheNextRunAndTouchesNoOther) {
  std::string text = "text";
  const iovec vector{text.data(), text.size()};
  noted_operation failing;
  noted_operation passing;
  fault::arm(call::write, 1, ENOSPC);
  ring_->write(file_.number(), {&vector, 1}, 0, failing);
  ring_->write(file_.number(), {&vector, 1}, 1'000, passing);
  EXPECT_EQ(failing.completions, 0) << "not before the run";
  run_until(failing);
  run_until(passing);
  EXPECT_EQ(failing.outcome, -ENOSPC);
  EXPECT_EQ(passing.outcome, 4);
  EXPECT_EQ(failing.completions, 1);
}

TEST_F(RingTest, EveryKindOfOperationCanBeMadeToFail) {
  char letter = 'x';
  const iovec vector{&letter, 1};
  const auto fails = [&](call which, const std::function<void(noted_operation&)>& prepare) {
    fault::arm(which, 1, EIO);
    noted_operation operation;
    prepare(operation);
    run_until(operation);
    fault::disarm();
    return operation.outcome == -EIO && operation.completions == 1;
  };
  const int file = file_.number();
  EXPECT_TRUE(fails(call::read, [&](noted_operation& it) { ring_->read(file, {&vector, 1}, 0, it); }));
  EXPECT_TRUE(fails(call::write, [&](noted_operation& it) { ring_->write(file, {&vector, 1}, 0, it); }));
  EXPECT_TRUE(fails(call::sync, [&](noted_operation& it) { ring_->sync_data(file, it); }));
  EXPECT_TRUE(fails(call::allocate, [&](noted_operation& it) { ring_->zero_range(file, 0, 4096, false, it); }));
  EXPECT_TRUE(fails(call::accept, [&](noted_operation& it) { ring_->accept(near_.number(), it); }));
}

TEST_F(RingTest, AnyNumberOfInjectedFailuresIsToldInOrder) {
  char letter = 'x';
  const iovec vector{&letter, 1};
  std::vector<std::size_t> order;
  std::vector<noted_operation> operations(100);
  fault::arm(call::read, 1, EIO, true);
  for (std::size_t i = 0; i < operations.size(); ++i) {
    operations[i].then = [&order, i] { order.push_back(i); };
    ring_->read(file_.number(), {&vector, 1}, 0, operations[i]);
  }
  for (const noted_operation& each : operations) run_until(each);
  ASSERT_EQ(order.size(), operations.size());
  for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
}

TEST_F(RingTest, OperationTriedAgainWhileTheDiskFailsDoesNotTrapTheRun) {
  char letter = 'x';
  const iovec vector{&letter, 1};
  noted_operation stubborn;
  stubborn.then = [&] {
    if (stubborn.outcome < 0) ring_->read(file_.number(), {&vector, 1}, 0, stubborn);
  };
  fault::arm(call::read, 1, EIO, true);
  ring_->read(file_.number(), {&vector, 1}, 0, stubborn);
  for (int i = 0; i < 5; ++i) ring_->run(true, now() + 10s);
  EXPECT_EQ(stubborn.completions, 5);
  fault::disarm();
  const time_point patience = now() + 10s;
  while (stubborn.outcome < 0 && now() < patience) ring_->run(true, patience);
  EXPECT_EQ(stubborn.outcome, 1);
}

TEST_F(RingTest, FailedCreationIsAnErrorAndLeaksNoDescriptor) {
  const auto descriptors = [] {
    const std::filesystem::directory_iterator folder("/proc/self/fd");
    return std::distance(begin(folder), end(folder));
  };
  const auto before = descriptors();
  for (const call which : {call::event, call::ring_setup}) {
    fault::arm(which, 1, ENOMEM);
    const auto refused = ring::create(8);
    EXPECT_EQ(refused.error(), error_from(ENOMEM));
  }
  EXPECT_EQ(ring::create(0).error(), error_from(EINVAL));
  EXPECT_EQ(descriptors(), before);
}

TEST_F(RingTest, MayBeDestroyedWithOperationsUnderWay) {
  noted_operation waiting;
  ring_->poll(near_.number(), POLLIN, waiting);
  ring_->run(false, no_deadline);
  ring_.reset();
  say('x');
  EXPECT_EQ(waiting.completions, 0);
}

// KF-55: what a ring costs can be charged before it is made.
TEST_F(RingTest, MemoryOfARingIsWhatItMaps) {
  const auto mapped = [] {
    std::ifstream maps("/proc/self/maps");
    std::uint64_t sum = 0;
    for (std::string line; std::getline(maps, line);) {
      if (line.find("[io_uring]") == std::string::npos) continue;
      const char* text = line.c_str();
      char* rest = nullptr;
      const std::uint64_t from = std::strtoull(text, &rest, 16);
      sum += std::strtoull(rest + 1, nullptr, 16) - from;
    }
    return bytes{sum};
  };
  for (const unsigned size : {1U, 4U, 64U, 100U, 256U, 1'000U}) {
    const bytes before = mapped();
    const auto made = ring::create(size);
    ASSERT_TRUE(made) << made.error().message();
    const bytes taken = mapped() - before;
    EXPECT_GT(taken, 0_B);
    EXPECT_LE(taken, ring::memory_of(size)) << size << " entries";
    EXPECT_GE(taken + 4_KiB, ring::memory_of(size)) << size << " entries";
  }
}

}  // namespace
}  // namespace larder::os

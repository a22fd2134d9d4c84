// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <larder/runtime.h>
#include <larder/select.h>

#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::run_on_all;
using tests::share;

constexpr time_point at_once = time_point::min();
time_point now() { return std::chrono::steady_clock::now(); }

class SelectTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, SelectTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(SelectTest, TakesTheCaseThatCanHappenAndNoOther) {
  channel<int> numbers(1);
  channel<std::unique_ptr<std::string>> words(1);
  int received = 0;
  bool sent = false;
  const auto try_it = [&](bool word_is_kept) {
    auto word = std::make_unique<std::string>("moved");
    const std::size_t happened =
        larder::select(at_once, on_receive(numbers, [&](std::optional<int> number) { received = number.value_or(-1); }),
                       on_send(words, std::move(word), [&](bool was) { sent = was; }));
    EXPECT_EQ(word != nullptr, word_is_kept);
    return happened;
  };
  EXPECT_EQ(try_it(false), 1U) << "there is room for the word";
  EXPECT_TRUE(sent);
  EXPECT_EQ(try_it(true), no_case);
  EXPECT_TRUE(numbers.send(5));
  EXPECT_EQ(try_it(true), 0U);
  EXPECT_EQ(received, 5);
  EXPECT_EQ(**words.receive(), "moved");
}

TEST_P(SelectTest, WaitsUntilOneCanHappen) {
  on_worker_0([this] {
    channel<int> left(0);
    channel<int> right(0);
    int received = 0;
    std::size_t happened = no_case;
    task selecting = runtime_->spawn_on(0, [&] {
      const auto note = [&](std::optional<int> number) { received = number.value_or(-1); };
      happened = larder::select(no_deadline, on_receive(left, note), on_receive(right, note));
    });
    this_task::yield();
    EXPECT_TRUE(right.try_send(3));
    EXPECT_FALSE(left.try_send(4)) << "the select was told already";
    selecting.join();
    EXPECT_EQ(happened, 1U);
    EXPECT_EQ(received, 3);
  });
}

TEST_P(SelectTest, DeadlineLeavesNothingBehind) {
  channel<int> empty(1);
  channel<int> full(1);
  EXPECT_TRUE(full.send(1));
  const auto try_it = [&] {
    const auto never = [](auto&&) { ADD_FAILURE() << "no case can happen"; };
    const time_point deadline = now() + 2ms;
    EXPECT_EQ(larder::select(deadline, on_receive(empty, never), on_send(full, 2, never)), no_case);
    EXPECT_GE(now(), deadline);
    EXPECT_EQ(larder::select(now() - 1h, on_receive(empty, never), on_send(full, 2, never)), no_case);
  };
  try_it();
  on_worker_0(try_it);
  EXPECT_EQ(full.receive(), 1);
  EXPECT_TRUE(empty.try_send(2));
  EXPECT_EQ(empty.size(), 1U) << "it went to nobody";
}

TEST_P(SelectTest, ClosedChannelsCaseHappens) {
  on_worker_0([this] {
    channel<int> closing(0);
    channel<int> other(0);
    bool got_nothing = false;
    bool was_sent = true;
    task receiving = runtime_->spawn_on(0, [&] {
      larder::select(no_deadline, on_receive(other, [](auto&&) { ADD_FAILURE(); }),
                     on_receive(closing, [&](std::optional<int> number) { got_nothing = !number; }));
    });
    this_task::yield();
    closing.close();
    receiving.join();
    EXPECT_TRUE(got_nothing);
    EXPECT_EQ(larder::select(no_deadline, on_send(closing, 1, [&](bool was) { was_sent = was; })), 0U);
    EXPECT_FALSE(was_sent);
  });
}

TEST_P(SelectTest, EachOfSeveralHasItsTurn) {
  channel<int> first(1);
  channel<int> second(1);
  channel<int> third(1);
  std::array<int, 3> happened{};
  constexpr int rounds = 3000;
  const auto ignore = [](auto&&) {};
  for (int i = 0; i < rounds; ++i) {
    for (channel<int>* each : {&first, &second, &third}) (void)each->try_send(i);
    ++happened[larder::select(at_once, on_receive(first, ignore), on_receive(second, ignore),
                              on_receive(third, ignore))];
    // Another select of the same channel, in every second turn.
    (void)larder::select(at_once, on_receive(first, ignore), on_receive(second, ignore));
  }
  for (const int times : happened) EXPECT_NEAR(times, rounds / 3, rounds / 30);
}

TEST_P(SelectTest, LvaluesAreCopiedAndCasesCanBeUsedAgain) {
  channel<std::string> words(2);
  const std::string word = "copied";
  int sent = 0;
  const auto note = [&](bool was) { sent += was ? 1 : 0; };
  EXPECT_EQ(larder::select(at_once, on_send(words, word, note)), 0U);
  std::optional<std::string> received;
  auto receiving = on_receive(words, [&](std::optional<std::string> next) { received = std::move(next); });
  EXPECT_EQ(larder::select(at_once, receiving), 0U);
  EXPECT_EQ(received, word);
  EXPECT_EQ(larder::select(at_once, receiving), no_case);
  EXPECT_TRUE(words.send("again"));
  EXPECT_EQ(larder::select(at_once, receiving), 0U);
  EXPECT_EQ(received, "again");
  EXPECT_EQ(sent, 1);
}

TEST_P(SelectTest, WhatAHandlerThrowsComesOut) {
  channel<int> numbers(1);
  EXPECT_THROW(larder::select(at_once, on_send(numbers, 1, [](bool) { throw std::runtime_error("thrown"); })),
               std::runtime_error);
  EXPECT_EQ(numbers.receive(), 1) << "the case had happened";
}

TEST_P(SelectTest, NeverMeetsItself) {
  channel<int> numbers(0);
  const auto never = [](auto&&) { ADD_FAILURE() << "nobody else is there"; };
  EXPECT_EQ(larder::select(now() + 2ms, on_send(numbers, 1, never), on_receive(numbers, never),
                           on_send(numbers, 2, never), on_receive(numbers, never)),
            no_case);
}

// Everybody sends to any channel or receives from any other, in any order, with deadlines; what was sent was received.
TEST_P(SelectTest, OpposedSelectsLoseNothing) {
  for (const std::size_t capacity : {0U, 1U}) {
    std::array<channel<std::int64_t>, 3> channels{channel<std::int64_t>(capacity), channel<std::int64_t>(capacity),
                                                  channel<std::int64_t>(capacity)};
    std::atomic<std::int64_t> sent{0};
    std::atomic<std::int64_t> received{0};
    std::atomic<int> wrong{0};
    run_on_all(*runtime_, 5, 3, [&](int number) {
      tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
      for (int i = 1; i <= 1500 / share; ++i) {
        const auto any = [&]() -> channel<std::int64_t>& { return channels[random.below(3)]; };
        const std::int64_t value = number * 10'000 + i;
        int handlers = 0;
        const auto note_sent = [&](bool was) {
          ++handlers;
          if (was) sent += value;
        };
        const auto note_received = [&](std::optional<std::int64_t> got) {
          ++handlers;
          received += got.value_or(0);
        };
        const std::size_t happened = larder::select(now() + std::chrono::microseconds(random.below(100)),
                                                    on_send(any(), value, note_sent), on_receive(any(), note_received),
                                                    on_send(any(), value, note_sent), on_receive(any(), note_received));
        if (handlers != (happened == no_case ? 0 : 1)) ++wrong;
      }
    });
    for (channel<std::int64_t>& each : channels) {
      while (const auto left = each.try_receive()) received += *left;
    }
    EXPECT_EQ(sent, received);
    EXPECT_EQ(wrong, 0);
  }
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/channel.h>
#include <larder/runtime.h>

#include "tests/support/model_random.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using tests::run_on_all;
using tests::share;

time_point now() { return std::chrono::steady_clock::now(); }

class ChannelTest : public tests::runtime_over_workers {};
INSTANTIATE_TEST_SUITE_P(Over, ChannelTest, testing::Values(1, 2, 4), tests::name_of_workers);

// Movable only, aligned, and counted while it holds a value or was moved from.
struct alignas(64) counted {
  explicit counted(int number) : value(std::make_unique<int>(number)) { ++alive; }
  counted(counted&& other) noexcept : value(std::move(other.value)) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(this) % 64, 0U);
    ++alive;
  }
  counted& operator=(counted&&) = delete;
  ~counted() { --alive; }

  std::unique_ptr<int> value;
  static inline std::atomic<int> alive{0};
};

TEST_P(ChannelTest, MovesEachElementOnceInTheOrderOfItsSender) {
  for (const std::size_t capacity : {0U, 1U, 7U}) {
    channel<std::pair<int, int>> numbers(capacity);
    constexpr int senders = 5;
    constexpr int each_sends = 1000 / share;
    std::atomic<int> sending{senders};
    std::atomic<long> sum{0};
    std::atomic<int> count{0};
    run_on_all(*runtime_, 6, 4, [&](int number) {
      if (number % 2 == 0) {
        for (int i = 0; i < each_sends; ++i) EXPECT_TRUE(numbers.send({number / 2, i}));
        if (--sending == 0) numbers.close();
        return;
      }
      std::array<int, senders> last;
      last.fill(-1);
      while (const auto received = numbers.receive()) {
        int& before = last[static_cast<std::size_t>(received->first)];
        EXPECT_LT(before, received->second);
        before = received->second;
        sum += received->second;
        ++count;
      }
    });
    EXPECT_EQ(count, senders * each_sends);
    EXPECT_EQ(sum, senders * (each_sends * (each_sends - 1L) / 2));
    EXPECT_TRUE(numbers.drained());
  }
}

// Deadlines on both sides, and a close in the middle of it: what was sent was received or is left in the channel.
TEST_P(ChannelTest, DeadlinesAndCloseLoseNothing) {
  for (const std::size_t capacity : {0U, 2U}) {
    channel<counted> elements(capacity);
    std::atomic<long> sent{0};
    std::atomic<long> received{0};
    run_on_all(*runtime_, 6, 4, [&](int number) {
      tests::model_random random(static_cast<std::uint64_t>(number), !this_task::inside());
      for (int i = 0; i < 1000 / share; ++i) {
        const time_point deadline = now() + std::chrono::microseconds(random.below(40));
        if (number % 2 == 0) {
          counted element(i);
          const bool done = elements.send_until(std::move(element), deadline);
          EXPECT_EQ(element.value == nullptr, done) << "moved from if and only if it was sent";
          if (done) sent += i;
        } else if (auto element = elements.receive_until(deadline)) {
          received += *element->value;
        }
      }
      if (number == 0) elements.close();
    });
    while (auto element = elements.receive()) received += *element->value;
    EXPECT_EQ(sent, received);
  }
  EXPECT_EQ(counted::alive, 0);
}

TEST_P(ChannelTest, RendezvousWaitsForTheReceiver) {
  on_worker_0([this] {
    channel<std::string> words(0);
    EXPECT_FALSE(words.try_send("nobody waits"));
    EXPECT_FALSE(words.try_receive());
    bool sent = false;
    task sender = runtime_->spawn_on(0, [&] { sent = words.send("first"); });
    this_task::yield();
    EXPECT_FALSE(sent);
    EXPECT_EQ(words.size(), 0U);
    EXPECT_EQ(words.try_receive(), "first");
    sender.join();
    EXPECT_TRUE(sent);
    task receiver = runtime_->spawn_on(0, [&] { EXPECT_EQ(words.receive(), "second"); });
    this_task::yield();
    EXPECT_TRUE(words.try_send("second"));
    receiver.join();
  });
}

TEST_P(ChannelTest, FullChannelMakesItsSendersWaitAndKeepsTheirOrder) {
  on_worker_0([this] {
    channel<int> numbers(2);
    EXPECT_EQ(numbers.capacity(), 2U);
    EXPECT_TRUE(numbers.try_send(0));
    EXPECT_TRUE(numbers.try_send(1));
    EXPECT_FALSE(numbers.try_send(2));
    std::vector<task> senders;
    for (int i = 2; i < 6; ++i)
      senders.push_back(runtime_->spawn_on(0, [&numbers, i] { EXPECT_TRUE(numbers.send(i)); }));
    this_task::yield();
    for (int i = 0; i < 6; ++i) {
      EXPECT_EQ(numbers.size(), i < 4 ? 2U : static_cast<std::size_t>(6 - i));
      EXPECT_EQ(numbers.receive(), i);
    }
    for (task& each : senders) each.join();
    EXPECT_FALSE(numbers.try_receive());
  });
}

TEST_P(ChannelTest, CloseEndsSendsAndLetsReceiversDrain) {
  on_worker_0([this] {
    channel<counted> elements(1);
    EXPECT_TRUE(elements.send(counted(1)));
    task sender = runtime_->spawn_on(0, [&] {
      counted kept(2);
      EXPECT_FALSE(elements.send(std::move(kept)));
      EXPECT_EQ(*kept.value, 2);
    });
    this_task::yield();
    elements.close();
    elements.close();
    sender.join();
    EXPECT_FALSE(elements.try_send(counted(3)));
    EXPECT_TRUE(elements.closed());
    EXPECT_FALSE(elements.drained());
    EXPECT_EQ(*elements.receive()->value, 1);
    EXPECT_TRUE(elements.drained());
    EXPECT_FALSE(elements.receive());

    channel<counted> empty(0);
    task receiver = runtime_->spawn_on(0, [&] { EXPECT_FALSE(empty.receive()); });
    this_task::yield();
    empty.close();
    receiver.join();
  });
  EXPECT_EQ(counted::alive, 0);
}

TEST_P(ChannelTest, DeadlinesAreKept) {
  channel<int> full(1);
  EXPECT_TRUE(full.send(1));
  channel<int> empty(1);
  const auto try_it = [&] {
    const time_point deadline = now() + 2ms;
    EXPECT_FALSE(full.send_until(2, deadline));
    EXPECT_GE(now(), deadline);
    EXPECT_FALSE(empty.receive_until(now() + 1ms));
    EXPECT_FALSE(full.send_until(2, now() - 1h)) << "a deadline in the past";
    EXPECT_TRUE(empty.send_until(3, now() - 1h)) << "there is room";
    EXPECT_EQ(empty.receive_until(now() - 1h), 3) << "there is one";
  };
  try_it();
  on_worker_0(try_it);
}

TEST(ChannelElementsTest, AreDestroyedWithTheChannel) {
  {
    channel<counted> elements(5);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(elements.try_send(counted(i)));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(*elements.receive()->value, i);
    EXPECT_TRUE(elements.try_send(counted(5)));  // around the end of the ring
    EXPECT_EQ(counted::alive, 3);
  }
  EXPECT_EQ(counted::alive, 0);
}

TEST(ChannelElementsTest, RoomThatCannotBeHadIsBadAlloc) {
  EXPECT_THROW(channel<counted>(std::numeric_limits<std::size_t>::max() / 2), std::bad_alloc);
}

// A model: a deque of what is in the channel, and of who waits on either side. Every waiter is a task of the worker
// that the test's task runs on, so after yields all that can happen has.
class channel_model {
 public:
  struct call {
    int value;              // sent, or received; -1 for nothing
    bool done = false;      // the channel's
    bool expected = false;  // the model's
    int result = 0;
    int expected_result = 0;
    task waiting;
  };
  explicit channel_model(std::size_t capacity) : capacity_(capacity) {}

  void send(call& by) {
    if (closed_) return finish(by, 0);
    if (!receivers_.empty()) {
      finish(*receivers_.front(), by.value);
      receivers_.pop_front();
    } else if (inside_.size() < capacity_) {
      inside_.push_back(by.value);
    } else {
      return senders_.push_back(&by);
    }
    finish(by, 1);
  }
  void receive(call& by) {
    if (inside_.empty() && senders_.empty()) return closed_ ? finish(by, -1) : receivers_.push_back(&by);
    if (!senders_.empty()) {
      inside_.push_back(senders_.front()->value);
      finish(*senders_.front(), 1);
      senders_.pop_front();
    }
    finish(by, inside_.front());
    inside_.pop_front();
  }
  void close() {
    closed_ = true;
    for (call* each : senders_) finish(*each, 0);
    for (call* each : receivers_) finish(*each, -1);
    senders_.clear();
    receivers_.clear();
  }
  bool would_send() const { return !closed_ && (!receivers_.empty() || inside_.size() < capacity_); }
  bool would_receive() const { return !inside_.empty() || !senders_.empty(); }
  std::size_t size() const { return inside_.size(); }
  std::size_t waiters() const { return senders_.size() + receivers_.size(); }

 private:
  static void finish(call& ended, int result) {
    ended.expected = true;
    ended.expected_result = result;
  }
  const std::size_t capacity_;
  bool closed_ = false;
  std::deque<int> inside_;
  std::deque<call*> senders_;
  std::deque<call*> receivers_;
};

TEST_P(ChannelTest, DoesAsItsModelDoes) {
  on_worker_0([this] {
    tests::model_random random;
    for (int round = 0; round < 20 / share; ++round) {
      const std::size_t capacity = random.below(4);
      channel<int> tested(capacity);
      channel_model model(capacity);
      std::list<channel_model::call> calls;
      const int closes_at = 250 + static_cast<int>(random.below(50));
      const std::uint64_t senders_weight = random.between(1, 4);
      for (int step = 0; step < 300; ++step) {
        if (step == closes_at) {
          tested.close();
          model.close();
        }
        const bool sends = random.below(5) < senders_weight;
        const bool may_wait = model.waiters() < 6 && random.one_in(2);
        channel_model::call& made = calls.emplace_back(channel_model::call{.value = step, .waiting = {}});
        if (!may_wait && !(sends ? model.would_send() : model.would_receive())) {
          const time_point deadline = random.one_in(16) ? now() + 10us : time_point::min();
          if (sends) {
            ASSERT_FALSE(tested.send_until(step, deadline));
          } else {
            ASSERT_FALSE(tested.receive_until(deadline));
          }
          calls.pop_back();
        } else if (sends) {
          made.waiting = runtime_->spawn_on(0, [&tested, &made] {
            made.result = tested.send(made.value) ? 1 : 0;
            made.done = true;
          });
          model.send(made);
        } else {
          made.waiting = runtime_->spawn_on(0, [&tested, &made] {
            made.result = tested.receive().value_or(-1);
            made.done = true;
          });
          model.receive(made);
        }
        this_task::yield();
        this_task::yield();
        ASSERT_EQ(tested.size(), model.size()) << "at step " << step;
        for (auto each = calls.begin(); each != calls.end();) {
          ASSERT_EQ(each->done, each->expected) << "at step " << step;
          if (each->done) {
            ASSERT_EQ(each->result, each->expected_result) << "at step " << step;
            each->waiting.join();
            each = calls.erase(each);
          } else {
            ++each;
          }
        }
      }
      EXPECT_TRUE(calls.empty()) << "the channel is closed";
    }
  });
}

class ChannelDeathTest : public testing::Test {
 protected:
  ChannelDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ChannelDeathTest, DestroyedWhileSomebodyWaitsDies) {
  const auto destroy_waited_for = [] {
    auto workers = runtime::create("tested", {.workers = 1});
    (*workers)->run([&] {
      auto numbers = std::make_unique<channel<int>>(1);
      (void)numbers->send(1);
      const task waiting = (*workers)->spawn([&] { (void)numbers->send(2); });
      this_task::yield();
      numbers.reset();
    });
  };
  EXPECT_DEATH(destroy_waited_for(), "a channel is destroyed while somebody waits to send");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// Channels and selects, over the simulated threads' parkers.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

#include <larder/channel.h>
#include <larder/select.h>

#include "os/clock.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// Two senders and a receiver, of whom the deadlines of some may pass at any moment; the channel is closed meanwhile.
template <std::size_t capacity>
class closed_channel : public scenario {
 public:
  closed_channel() {
    thread("sender", [this] { note_sent(channel_.send(1)); });
    thread("impatient", [this] { note_sent(channel_.send_until(1, os::now() + 1h)); });
    thread("receiver", [this] {
      while (channel_.receive()) ++received_;
      require(channel_.drained(), "a receive got nothing from a channel that is not drained");
    });
    thread("closer", [this] { channel_.close(); });
  }
  void audit() override { require(sent_ == received_, "%u were sent and %u received", sent_, received_); }

 private:
  void note_sent(bool was) { sent_ += was ? 1U : 0U; }

  channel<int> channel_{capacity};
  unsigned sent_ = 0;  // only one thread runs at a time
  unsigned received_ = 0;
};

TEST(ChannelSchedTest, ClosedChannelIsDrainedAndItsSendersGoOn) {
  const search_report report = explore<closed_channel<1>>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(ChannelSchedTest, RendezvousMovesEachElementOnceWhateverCloses) {
  const search_report report = explore<closed_channel<0>>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// Nobody receives: close alone ends the sends.
class two_senders_and_closer : public scenario {
 public:
  two_senders_and_closer() {
    thread("first", [this] { require(!channel_.send(1), "a send that nobody received"); });
    thread("second", [this] { require(!channel_.send(2), "a send that nobody received"); });
    thread("closer", [this] { channel_.close(); });
  }

 private:
  channel<int> channel_{0};
};

TEST(ChannelSchedTest, CloseEndsEverySend) {
  const search_report report = explore<two_senders_and_closer>({.preemptions = unbounded});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(ChannelSchedTest, CloseThatTellsOneOnlyIsCaught) {
  EXPECT_TRUE(mutant_is_killed<two_senders_and_closer>(mutant::close_tells_one));
}

// Two senders meet one select on two channels. What it does not take is for the audit.
class select_between_senders : public scenario {
 public:
  select_between_senders() {
    thread("select", [this] {
      unsigned handlers = 0;
      const auto note = [&](std::optional<int> value) {
        ++handlers;
        ++received_;
        require(value.has_value(), "an open channel gave nothing");
      };
      const std::size_t happened =
          larder::select(os::now() + 1h, on_receive(channels_[0], note), on_receive(channels_[1], note));
      require(handlers == (happened == no_case ? 0U : 1U), "%u handlers were called", handlers);
    });
    for (std::size_t i = 0; i < 2; ++i) {
      thread(i == 0 ? "left" : "right", [this, i] {
        int value = static_cast<int>(i);
        if (channels_[i].send_until(std::move(value), os::now() + 1h)) ++sent_;
      });
    }
  }
  void audit() override { require(sent_ == received_, "%u were sent and %u received", sent_, received_); }

 private:
  std::array<channel<int>, 2> channels_{channel<int>(0), channel<int>(0)};
  unsigned sent_ = 0;
  unsigned received_ = 0;
};

TEST(SelectSchedTest, ExactlyOneCaseHappens) {
  const search_report report = explore<select_between_senders>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(SelectSchedTest, SecondSenderToOneSelectIsCaught) {
  EXPECT_TRUE(mutant_is_killed<select_between_senders>(mutant::claim_unheeded));
}

TEST(SelectSchedTest, DeadlineThatForgetsThatACaseHappenedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<select_between_senders>(mutant::deadline_drops_grant));
}

TEST(SelectSchedTest, SelectThatStaysInTheOtherQueueIsCaught) {
  EXPECT_TRUE(mutant_is_killed<select_between_senders>(mutant::places_left_behind));
}

// Each would send to the other or receive from it, on two channels that they name in opposite order.
class opposed_selects : public scenario {
 public:
  opposed_selects() {
    name(channels_[0], "left channel");
    name(channels_[1], "right channel");
    for (std::size_t side = 0; side < 2; ++side) {
      thread(side == 0 ? "left" : "right", [this, side] { meet(side); });
    }
  }
  void audit() override {
    require(sent_ == 1 && received_ == 1, "two selects sent %u and received %u", sent_, received_);
  }

 private:
  void meet(std::size_t side) {
    const auto note_received = [this](std::optional<int> value) { received_ += value ? 1U : 0U; };
    const auto note_sent = [this](bool was) { sent_ += was ? 1U : 0U; };
    larder::select(no_deadline, on_send(channels_[side], 1, note_sent), on_receive(channels_[1 - side], note_received));
  }
  std::array<channel<int>, 2> channels_{channel<int>(0), channel<int>(0)};
  unsigned sent_ = 0;
  unsigned received_ = 0;
};

TEST(SelectSchedTest, OpposedSelectsMeet) {
  const search_report report = explore<opposed_selects>({.preemptions = unbounded});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.complete);
}

TEST(SelectSchedTest, GuardsInTheOrderOfTheCasesAreCaught) {
  EXPECT_TRUE(mutant_is_killed<opposed_selects>(mutant::guards_unordered));
}

// Three selects that send and receive on one channel: two of them meet, the third finds its deadline.
class selects_of_one_channel : public scenario {
 public:
  selects_of_one_channel() {
    for (const char* name : {"first", "second", "third"}) {
      thread(name, [this] {
        larder::select(os::now() + 1h, on_send(channel_, 1, [this](bool was) { sent_ += was ? 1U : 0U; }),
                       on_receive(channel_, [this](std::optional<int> value) { received_ += value ? 1U : 0U; }));
      });
    }
  }
  void audit() override { require(sent_ == received_ && sent_ <= 1, "%u sent, %u received", sent_, received_); }

 private:
  channel<int> channel_{0};
  unsigned sent_ = 0;
  unsigned received_ = 0;
};

TEST(SelectSchedTest, SelectNeverMeetsItself) {
  const search_report report = explore<selects_of_one_channel>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

}  // namespace
}  // namespace larder::sched

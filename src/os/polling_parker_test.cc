// SPDX-License-Identifier: Apache-2.0
#include "os/polling_parker.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include <gtest/gtest.h>

#include "os/clock.h"
#include "os/fault.h"
#include "tests/support/eventually.h"

namespace larder::os {
namespace {

using namespace std::chrono_literals;

// A connection whose urgent data makes its other end exceptional.
class PollingParkerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const descriptor listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    ASSERT_EQ(::bind(listening.number(), any, length), 0);
    ASSERT_EQ(::listen(listening.number(), 1), 0);
    ASSERT_EQ(::getsockname(listening.number(), any, &length), 0);
    sender_ = descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(sender_.number(), any, length), 0);
    descriptor watched(::accept(listening.number(), nullptr, nullptr));
    watched_ = watched.number();
    const auto made = polling_parker::make(std::move(watched));
    ASSERT_TRUE(made);
    parker_ = *made;
  }
  void TearDown() override {
    if (parker_ != nullptr) parker_->abandon();
  }
  void make_exceptional() { ASSERT_EQ(::send(sender_.number(), "!", 1, MSG_OOB), 1); }
  void make_calm() {
    char taken = 0;
    ASSERT_EQ(::recv(watched_, &taken, 1, MSG_OOB), 1);
  }

  descriptor sender_;
  int watched_ = -1;
  polling_parker* parker_ = nullptr;
};

TEST_F(PollingParkerTest, TokensAreKeptAndTaken) {
  parker_->unpark();
  parker_->unpark();
  EXPECT_TRUE(parker_->park_until(now() + 10s));
  EXPECT_FALSE(parker_->park_until(now() + 1ms)) << "one token, however often it is left";
  EXPECT_FALSE(parker_->park_until(now() - 1ms));
  EXPECT_FALSE(parker_->take_event());
}

TEST_F(PollingParkerTest, DeadlinesAreNotEarly) {
  const time_point deadline = now() + 3ms + 700us;
  EXPECT_FALSE(parker_->park_until(deadline));
  EXPECT_GE(now(), deadline);
}

TEST_F(PollingParkerTest, AnotherThreadWakesIt) {
  std::thread sleeper([&] { parker_->park(); });
  EXPECT_TRUE(tests::eventually([&] { return parker_->is_parked(); }));
  parker_->unpark();
  sleeper.join();
  EXPECT_FALSE(parker_->take_event());
}

TEST_F(PollingParkerTest, SoDoesTheDescriptor) {
  std::thread sleeper([&] { parker_->park(); });
  EXPECT_TRUE(tests::eventually([&] { return parker_->is_parked(); }));
  make_exceptional();
  sleeper.join();
  EXPECT_TRUE(parker_->take_event());
  EXPECT_FALSE(parker_->take_event());
  make_calm();
  EXPECT_FALSE(parker_->park_until(now() + 1ms));
}

TEST_F(PollingParkerTest, ADescriptorThatIsGoneIsForgotten) {
  sender_.close();
  ::shutdown(watched_, SHUT_RDWR);
  EXPECT_FALSE(parker_->park_until(now() + 20ms)) << "it hung up, which is no event";
  parker_->unpark();
  EXPECT_TRUE(parker_->park_until(now() + 10s));
}

TEST_F(PollingParkerTest, FailuresAreTold) {
  fault::arm(call::event, 1, EMFILE);
  EXPECT_EQ(polling_parker::make({}).error(), std::errc::too_many_files_open);
  fault::disarm();
}

}  // namespace
}  // namespace larder::os

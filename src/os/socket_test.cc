// SPDX-License-Identifier: Apache-2.0
#include "os/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "os/fault.h"

namespace larder::os {
namespace {

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

class SocketTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/larder-socket-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/socket";
  }
  void TearDown() override {
    fault::disarm();
    std::filesystem::remove_all(folder_);
  }

  std::string folder_;
  std::string path_;
};

bool readable(int socket, int milliseconds) {
  pollfd polled{socket, POLLIN, 0};
  return ::poll(&polled, 1, milliseconds) == 1;
}

void expect_talk(int from, int to) {
  std::string said = "hello";
  const iovec out{said.data(), said.size()};
  const auto sent = send_now(from, {&out, 1});
  ASSERT_TRUE(sent);
  EXPECT_EQ(*sent, 5U);
  ASSERT_TRUE(readable(to, 5'000));
  std::array<char, 3> first{};
  std::array<char, 100> rest{};
  const std::array<iovec, 2> in{iovec{first.data(), first.size()}, iovec{rest.data(), rest.size()}};
  const auto received = receive_now(to, in);
  ASSERT_TRUE(received);
  EXPECT_EQ(*received, 5U);
  EXPECT_EQ(std::string(first.data(), 3) + std::string(rest.data(), 2), "hello");
}

TEST_F(SocketTest, UnixPeersConnectAndTalk) {
  const auto listener = listen_unix(path_);
  ASSERT_TRUE(listener);
  EXPECT_EQ(accept_one(listener->number()).error(), error_from(EAGAIN)) << "nobody waits yet";
  const auto client = connect_unix(path_);
  ASSERT_TRUE(client);
  const auto server = accept_one(listener->number());
  ASSERT_TRUE(server);
  for (const int socket : {listener->number(), client->number(), server->number()}) {
    EXPECT_NE(::fcntl(socket, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(socket, F_GETFD) & FD_CLOEXEC, 0);
  }
  send_without_delay(server->number());
  expect_talk(client->number(), server->number());
  expect_talk(server->number(), client->number());
}

TEST_F(SocketTest, StaleSocketFileIsReplaced) {
  {
    const auto dead = listen_unix(path_);
    ASSERT_TRUE(dead);
  }
  ASSERT_TRUE(std::filesystem::exists(path_)) << "a closed listener leaves its file";
  const auto listener = listen_unix(path_);
  ASSERT_TRUE(listener);
  EXPECT_TRUE(connect_unix(path_));
}

TEST_F(SocketTest, LiveSocketIsLeftAlone) {
  const auto first = listen_unix(path_);
  ASSERT_TRUE(first);
  EXPECT_EQ(listen_unix(path_).error(), error_from(EADDRINUSE));
  EXPECT_TRUE(accept_one(first->number())) << "the look at it was a connection";
  EXPECT_TRUE(connect_unix(path_)) << "the first still listens there";
}

TEST_F(SocketTest, WhatIsNoSocketIsLeftAlone) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(listen_unix(path_).error(), error_from(EEXIST));
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "precious");
  remove_socket_file(path_);
  EXPECT_TRUE(std::filesystem::exists(path_));
  std::filesystem::remove(path_);
  std::filesystem::create_symlink(folder_ + "/elsewhere", path_);
  EXPECT_EQ(listen_unix(path_).error(), error_from(EEXIST)) << "a symbolic link is not followed";
}

TEST_F(SocketTest, RemoveSocketFileRemovesIt) {
  const auto listener = listen_unix(path_);
  ASSERT_TRUE(listener);
  remove_socket_file(path_);
  EXPECT_FALSE(std::filesystem::exists(path_));
  remove_socket_file(path_);
}

TEST_F(SocketTest, PathsThatCannotBeAreErrors) {
  EXPECT_EQ(listen_unix("").error(), error_from(ENAMETOOLONG));
  EXPECT_EQ(listen_unix(folder_ + "/" + std::string(200, 'x')).error(), error_from(ENAMETOOLONG));
  EXPECT_EQ(listen_unix(folder_ + "/no/folder").error(), error_from(ENOENT));
  EXPECT_EQ(connect_unix(path_).error(), error_from(ENOENT));
}

TEST_F(SocketTest, FailedListenLeavesNoFileAndNoDescriptor) {
  const std::size_t before = open_descriptors();
  for (const call which : {call::socket, call::bind, call::listen}) {
    fault::arm(which, 1, ENOMEM);
    EXPECT_EQ(listen_unix(path_).error(), error_from(ENOMEM));
    EXPECT_TRUE(fault::fired());
    EXPECT_FALSE(std::filesystem::exists(path_));
    fault::arm(which, 1, ENOMEM);
    EXPECT_EQ(listen_tcp("127.0.0.1", 0).error(), error_from(ENOMEM));
  }
  fault::disarm();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(SocketTest, InjectedFailuresAreTheCallsErrors) {
  const auto pair = socket_pair();
  const auto listener = listen_unix(path_);
  ASSERT_TRUE(pair && listener);
  char letter = 'x';
  const iovec vector{&letter, 1};
  fault::arm(call::send, 1, EPIPE);
  EXPECT_EQ(send_now(pair->first.number(), {&vector, 1}).error(), error_from(EPIPE));
  fault::arm(call::receive, 1, ECONNRESET);
  EXPECT_EQ(receive_now(pair->first.number(), {&vector, 1}).error(), error_from(ECONNRESET));
  fault::arm(call::connect, 1, EAGAIN);
  EXPECT_EQ(connect_unix(path_).error(), error_from(EAGAIN));
  fault::arm(call::accept, 1, EMFILE);
  EXPECT_EQ(accept_one(listener->number()).error(), error_from(EMFILE));
  fault::arm(call::socket, 1, EMFILE);
  EXPECT_EQ(socket_pair().error(), error_from(EMFILE));
}

descriptor connect_tcp(int family, std::uint16_t port) {
  descriptor client(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v6.sin6_addr = in6addr_loopback;
  const bool is_v4 = family == AF_INET;
  const int outcome =
      ::connect(client.number(), is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6),
                is_v4 ? sizeof v4 : sizeof v6);
  return outcome == 0 ? std::move(client) : descriptor();
}

TEST_F(SocketTest, TcpPort0TakesAFreeOneAndTellsIt) {
  for (const auto& [host, family] : {std::pair{"127.0.0.1", AF_INET}, std::pair{"::1", AF_INET6}}) {
    const auto listener = listen_tcp(host, 0);
    if (!listener && family == AF_INET6) GTEST_SKIP() << "no IPv6: " << listener.error().message();
    ASSERT_TRUE(listener) << listener.error().message();
    EXPECT_EQ(listener->address, host);
    EXPECT_NE(listener->port, 0);
    EXPECT_EQ(accept_one(listener->socket.number()).error(), error_from(EAGAIN));
    const descriptor client = connect_tcp(family, listener->port);
    ASSERT_TRUE(client);
    ASSERT_TRUE(readable(listener->socket.number(), 5'000));
    const auto server = accept_one(listener->socket.number());
    ASSERT_TRUE(server);
    send_without_delay(server->number());
    int on = 0;
    socklen_t length = sizeof on;
    ASSERT_EQ(::getsockopt(server->number(), IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    EXPECT_NE(on, 0);
    expect_talk(client.number(), server->number());
  }
}

TEST_F(SocketTest, TcpPortInUseIsAnErrorAndABadNameToo) {
  const auto first = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(first);
  EXPECT_EQ(listen_tcp("127.0.0.1", first->port).error(), error_from(EADDRINUSE));
  EXPECT_EQ(listen_tcp("300.1.2.3.4", 0).error(), error_from(EINVAL));
}

TEST_F(SocketTest, ReceivesEagainThenDataThenZeroWhenThePeerIsGone) {
  auto pair = socket_pair();
  ASSERT_TRUE(pair);
  char letter = '\0';
  const iovec vector{&letter, 1};
  EXPECT_EQ(receive_now(pair->first.number(), {&vector, 1}).error(), error_from(EAGAIN));
  expect_talk(pair->second.number(), pair->first.number());
  pair->second.close();
  const auto gone = receive_now(pair->first.number(), {&vector, 1});
  ASSERT_TRUE(gone);
  EXPECT_EQ(*gone, 0U);
}

TEST_F(SocketTest, SendsWhatFitsThenEagainThenEpipeWithoutASignal) {
  auto pair = socket_pair();
  ASSERT_TRUE(pair);
  std::string block(1U << 20, 'x');
  const iovec vector{block.data(), block.size()};
  const auto first = send_now(pair->first.number(), {&vector, 1});
  ASSERT_TRUE(first);
  EXPECT_LT(*first, block.size()) << "a part is success";
  result<std::size_t> last = std::size_t{0};
  for (int i = 0; i < 1'000 && last; ++i) last = send_now(pair->first.number(), {&vector, 1});
  EXPECT_EQ(last.error(), error_from(EAGAIN));
  pair->second.close();
  EXPECT_EQ(send_now(pair->first.number(), {&vector, 1}).error(), error_from(EPIPE));
}

TEST_F(SocketTest, WaitForEventsBlocksUntilThereIsOne) {
  const auto pair = socket_pair();
  ASSERT_TRUE(pair);
  EXPECT_EQ(wait_for_events(pair->first.number(), POLLOUT), POLLOUT);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    char letter = 'x';
    const iovec vector{&letter, 1};
    EXPECT_TRUE(send_now(pair->second.number(), {&vector, 1}));
  });
  EXPECT_EQ(wait_for_events(pair->first.number(), POLLIN), POLLIN);
  other.join();
  shut_down(pair->second.number());
  EXPECT_NE(wait_for_events(pair->first.number(), POLLOUT) & POLLHUP, 0);
}

TEST_F(SocketTest, ShutDownWakesWhoPolls) {
  const auto pair = socket_pair();
  ASSERT_TRUE(pair);
  EXPECT_FALSE(readable(pair->first.number(), 0));
  shut_down(pair->first.number());
  EXPECT_TRUE(readable(pair->first.number(), 5'000));
  EXPECT_TRUE(readable(pair->second.number(), 5'000));
}

}  // namespace
}  // namespace larder::os

// SPDX-License-Identifier: Apache-2.0
#include "task/io.h"

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>
#include <larder/runtime.h>

#include "os/fault.h"
#include "os/file.h"
#include "os/socket.h"

namespace larder {
namespace {

using namespace std::chrono_literals;

std::vector<std::byte> pattern(std::size_t length, unsigned seed) {
  std::vector<std::byte> content(length);
  for (std::size_t i = 0; i < length; ++i) content[i] = static_cast<std::byte>((i * 31 + i / 253 + seed) & 0xff);
  return content;
}

iovec vector_of(std::span<std::byte> memory) { return {memory.data(), memory.size()}; }

// Each test runs its body on a task and on a plain thread: the promises are the same.
class IoTest : public testing::TestWithParam<bool> {
 protected:
  IoTest() : runtime_(*runtime::create("io", {.workers = 1, .budget = &budget_})) {}
  ~IoTest() override {
    os::fault::disarm();
    runtime_.reset();
    EXPECT_EQ(budget_.used(), bytes{0});
  }

  template <typename Body>
  void in_place(Body body) {
    if (GetParam()) {
      runtime_->run(body);
    } else {
      body();
    }
  }
  static os::descriptor new_file(bytes size) { return *os::open_nameless_file(testing::TempDir(), size); }

  memory_budget budget_{"io"};
  std::unique_ptr<runtime> runtime_;
};
INSTANTIATE_TEST_SUITE_P(On, IoTest, testing::Bool(),
                         [](const auto& where) { return where.param ? "ATask" : "AThread"; });

TEST_P(IoTest, WhatIsWrittenIsReadAtItsOffset) {
  const os::descriptor file = new_file(64_KiB);
  in_place([&] {
    const auto written = pattern(10'000, 1);
    ASSERT_TRUE(io::write(file.number(), written, 12'345));
    ASSERT_TRUE(io::sync(file.number()));
    std::vector<std::byte> read(10'000);
    ASSERT_TRUE(io::read(file.number(), read, 12'345));
    EXPECT_EQ(read, written);
    std::byte before{0xff};
    ASSERT_TRUE(io::read(file.number(), std::span(&before, 1), 12'344));
    EXPECT_EQ(before, std::byte{0});
  });
}

TEST_P(IoTest, ReadPastTheEndGivesZeros) {
  const os::descriptor file = new_file({});
  in_place([&] {
    const auto written = pattern(1000, 2);
    ASSERT_TRUE(io::write(file.number(), written, 0));
    std::vector<std::byte> read(3000, std::byte{0xee});
    ASSERT_TRUE(io::read(file.number(), read, 400));  // the end lies within
    EXPECT_TRUE(std::equal(written.begin() + 400, written.end(), read.begin()));
    EXPECT_TRUE(std::all_of(read.begin() + 600, read.end(), [](std::byte each) { return each == std::byte{0}; }));
    read.assign(3000, std::byte{0xee});
    ASSERT_TRUE(io::read(file.number(), read, 1'000'000));
    EXPECT_TRUE(std::all_of(read.begin(), read.end(), [](std::byte each) { return each == std::byte{0}; }));
  });
}

TEST_P(IoTest, EndOfTheFileInTheMiddleOfAVectorZeroesTheRestOfAll) {
  const os::descriptor file = new_file({});
  in_place([&] {
    const auto written = pattern(250, 3);
    ASSERT_TRUE(io::write(file.number(), written, 0));
    std::array<std::array<std::byte, 100>, 5> parts;
    std::vector<iovec> vectors;
    for (auto& part : parts) {
      part.fill(std::byte{0xee});
      vectors.push_back(vector_of(part));
    }
    ASSERT_TRUE(io::read_vectors(file.number(), vectors, 0));
    for (std::size_t i = 0; i < 500; ++i) {
      EXPECT_EQ(parts[i / 100][i % 100], i < 250 ? written[i] : std::byte{0}) << i;
    }
  });
}

TEST_P(IoTest, MoreVectorsThanTheKernelTakesAtOnceArriveInOrder) {
  const os::descriptor file = new_file({});
  in_place([&] {
    auto written = pattern(300 * 700, 4);
    std::vector<iovec> from;
    for (std::size_t i = 0; i < 300; ++i) from.push_back(vector_of(std::span(written).subspan(i * 700, 700)));
    ASSERT_TRUE(io::write_vectors(file.number(), from, 77));
    std::vector<std::byte> read(written.size());
    std::vector<iovec> into;  // cut elsewhere
    for (std::size_t at = 0; at < read.size();) {
      const std::size_t length = std::min<std::size_t>(1 + at % 1999, read.size() - at);
      into.push_back(vector_of(std::span(read).subspan(at, length)));
      at += length;
    }
    EXPECT_GT(into.size(), 64U);
    ASSERT_TRUE(io::read_vectors(file.number(), into, 77));
    EXPECT_EQ(read, written);
  });
}

TEST_P(IoTest, EmptyVectorsAndTransfersOfNothingSucceed) {
  const os::descriptor file = new_file({});
  in_place([&] {
    EXPECT_TRUE(io::read(file.number(), {}, 0));
    EXPECT_TRUE(io::write(file.number(), {}, 0));
    EXPECT_TRUE(io::read_vectors(file.number(), {}, 0));
    EXPECT_TRUE(io::write_vectors(file.number(), {}, 0));
    auto written = pattern(100, 5);
    std::vector<iovec> sparse(200, iovec{nullptr, 0});
    sparse[150] = vector_of(std::span(written).first(60));
    sparse[180] = vector_of(std::span(written).last(40));
    EXPECT_TRUE(io::write_vectors(file.number(), sparse, 0));
    std::vector<std::byte> read(100);
    sparse.assign(200, iovec{nullptr, 0});
    sparse[70] = vector_of(std::span(read).first(10));
    sparse[199] = vector_of(std::span(read).last(90));
    EXPECT_TRUE(io::read_vectors(file.number(), sparse, 0));
    EXPECT_EQ(read, written);
  });
}

TEST_P(IoTest, ZeroRangeReadsAsZeros) {
  const os::descriptor file = new_file({});
  in_place([&] {
    const auto written = pattern(64 << 10, 6);
    ASSERT_TRUE(io::write(file.number(), written, 0));
    const auto outcome = io::zero_range(file.number(), 8192, 16384, false);
    if (!outcome) GTEST_SKIP() << "the file system cannot: " << outcome.error().message();
    std::vector<std::byte> read(written.size());
    ASSERT_TRUE(io::read(file.number(), read, 0));
    for (std::size_t i = 0; i < read.size(); ++i) {
      const bool zeroed = i >= 8192 && i < 8192 + 16384;
      ASSERT_EQ(read[i], zeroed ? std::byte{0} : written[i]) << i;
    }
  });
}

// A write that the kernel cuts short (here at the limit of a file's size) goes on from where it was cut, and then hears
// why.
TEST_P(IoTest, WriteCutShortGoesOnAndReportsTheError) {
  const os::descriptor file = new_file({});
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit short_files{100'000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &short_files), 0);
  in_place([&] {
    const auto written = pattern(150'000, 7);
    EXPECT_EQ(io::write(file.number(), written, 0).error(), error_from(EFBIG));
    std::vector<std::byte> read(100'000);
    EXPECT_TRUE(io::read(file.number(), read, 0));
    EXPECT_TRUE(std::equal(read.begin(), read.end(), written.begin()));
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
}

TEST_P(IoTest, ErrorsAreThoseOfTheSystemCall) {
  const os::descriptor file = new_file(4_KiB);
  const std::string path = "/proc/self/fd/" + std::to_string(file.number());
  const auto read_only = os::open_file(path, os::access::read_only);
  ASSERT_TRUE(read_only);
  in_place([&] {
    std::array<std::byte, 16> memory{};
    EXPECT_EQ(io::read(-1, memory, 0).error(), error_from(EBADF));
    EXPECT_EQ(io::write(-1, memory, 0).error(), error_from(EBADF));
    EXPECT_EQ(io::sync(-1).error(), error_from(EBADF));
    EXPECT_EQ(io::write(read_only->number(), memory, 0).error(), error_from(EBADF));
    EXPECT_EQ(io::receive(-1, memory).error(), error_from(EBADF));
    EXPECT_EQ(io::send(-1, memory).error(), error_from(EBADF));
    EXPECT_EQ(io::accept(-1).error(), error_from(EBADF));
    EXPECT_EQ(io::receive(file.number(), memory).error(), error_from(ENOTSOCK));
  });
}

TEST_P(IoTest, FailuresThatATestInjectsComeOutOnce) {
  const os::descriptor file = new_file(4_KiB);
  in_place([&] {
    std::array<std::byte, 16> memory{};
    os::fault::arm(os::call::read, 2, EIO);
    EXPECT_TRUE(io::read(file.number(), memory, 0));
    EXPECT_EQ(io::read(file.number(), memory, 0).error(), error_from(EIO));
    EXPECT_TRUE(io::read(file.number(), memory, 0));
    os::fault::arm(os::call::write, 1, ENOSPC);
    EXPECT_EQ(io::write(file.number(), memory, 0).error(), error_from(ENOSPC));
    EXPECT_TRUE(io::write(file.number(), memory, 0));
    os::fault::arm(os::call::sync, 1, EIO);
    EXPECT_EQ(io::sync(file.number()).error(), error_from(EIO));
    EXPECT_TRUE(io::sync(file.number()));
    os::fault::arm(os::call::allocate, 1, EOPNOTSUPP);
    EXPECT_EQ(io::zero_range(file.number(), 0, 4096, false).error(), error_from(EOPNOTSUPP));
    auto [left, right] = *os::socket_pair();
    os::fault::arm(os::call::send, 1, ECONNRESET);
    EXPECT_EQ(io::send(left.number(), memory).error(), error_from(ECONNRESET));
    EXPECT_TRUE(io::send(left.number(), memory));
    os::fault::arm(os::call::receive, 1, ECONNRESET);
    EXPECT_EQ(io::receive(right.number(), memory).error(), error_from(ECONNRESET));
    EXPECT_EQ(*io::receive(right.number(), memory), memory.size());
  });
}

TEST_P(IoTest, ReceiveWaitsForDataAndSeesTheEnd) {
  auto [left, right] = *os::socket_pair();
  const int sending = left.number();
  std::thread sender([sending, &closed = left] {
    std::this_thread::sleep_for(2ms);
    const auto hello = pattern(5, 8);
    EXPECT_TRUE(io::send(sending, hello));
    std::this_thread::sleep_for(2ms);
    closed.close();
  });
  in_place([&, receiving = right.number()] {
    std::array<std::byte, 100> memory{};
    const auto first = io::receive(receiving, memory);
    ASSERT_TRUE(first);
    EXPECT_EQ(*first, 5U);
    const auto end = io::receive(receiving, memory);
    ASSERT_TRUE(end);
    EXPECT_EQ(*end, 0U);
  });
  sender.join();
}

TEST_P(IoTest, SendToAClosedPeerFailsWithoutASignal) {
  auto [left, right] = *os::socket_pair();
  right.close();
  in_place([&, sending = left.number()] {
    std::array<std::byte, 16> memory{};
    EXPECT_EQ(io::send(sending, memory).error(), error_from(EPIPE));
  });
}

TEST_P(IoTest, SendLargerThanTheSocketHoldsBlocksUntilAllIsSent) {
  auto [left, right] = *os::socket_pair();
  const auto sent = pattern(4 << 20, 9);
  std::vector<std::byte> received;
  std::thread receiver([&received, receiving = right.number(), total = sent.size()] {
    std::this_thread::sleep_for(2ms);
    std::vector<std::byte> memory(50'000);
    while (received.size() < total) {
      const auto some = io::receive(receiving, memory);
      ASSERT_TRUE(some);
      ASSERT_GT(*some, 0U);
      received.insert(received.end(), memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(*some));
    }
  });
  in_place([&, sending = left.number()] { EXPECT_TRUE(io::send(sending, sent)); });
  receiver.join();
  EXPECT_EQ(received, sent);
}

TEST_P(IoTest, AcceptWaitsForAConnection) {
  const std::string path = testing::TempDir() + "larder_io_test_" + std::to_string(::getpid());
  const auto listener = os::listen_unix(path);
  ASSERT_TRUE(listener) << listener.error().message();
  std::thread client([&path] {
    std::this_thread::sleep_for(2ms);
    for (int i = 0; i < 3; ++i) {
      const auto connected = os::connect_unix(path);
      ASSERT_TRUE(connected);
      EXPECT_TRUE(io::send(connected->number(), pattern(10, static_cast<unsigned>(i))));
    }
  });
  in_place([&] {
    for (unsigned i = 0; i < 3; ++i) {
      const auto accepted = io::accept(listener->number());
      ASSERT_TRUE(accepted);
      const os::descriptor connection(*accepted);
      std::array<std::byte, 10> memory{};
      const auto some = io::receive(connection.number(), memory);
      ASSERT_TRUE(some);
      EXPECT_EQ(*some, 10U);
      EXPECT_EQ(memory[1], pattern(10, i)[1]);
    }
  });
  client.join();
  os::remove_socket_file(path);
}

TEST_P(IoTest, ADeadlineEndsEachWaitAndTheSocketIsAsItWas) {
  const auto pair = os::socket_pair();
  ASSERT_TRUE(pair);
  const int here = pair->first.number();
  const int there = pair->second.number();
  const std::string path = testing::TempDir() + "larder_io_deadline_" + std::to_string(::getpid());
  const auto listener = os::listen_unix(path);
  ASSERT_TRUE(listener);
  const auto now = [] { return std::chrono::steady_clock::now(); };
  in_place([&] {
    std::vector<std::byte> much(8U << 20);
    const auto soon = now() + 3ms;
    EXPECT_EQ(io::receive(here, much, soon).error(), error_from(ETIMEDOUT));
    EXPECT_GE(now(), soon);
    EXPECT_EQ(io::receive(here, much, now() - 1h).error(), error_from(ETIMEDOUT)) << "a deadline in the past";
    EXPECT_EQ(io::accept(listener->number(), now() + 1ms).error(), error_from(ETIMEDOUT));
    ASSERT_TRUE(io::send(there, std::span(much).first(1), now() + 1h));
    EXPECT_EQ(*io::receive(here, much, now() + 1h), 1U);
    EXPECT_EQ(io::send(here, much, now() + 1ms).error(), error_from(ETIMEDOUT)) << "nobody receives";
  });
  os::remove_socket_file(path);
}

// An address of this machine, as bytes.
struct loopback_address {
  explicit loopback_address(std::uint16_t port) {
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  std::span<const std::byte> as_bytes() const { return std::as_bytes(std::span(&address, 1)); }
  sockaddr_in address{};
};

TEST_P(IoTest, ConnectWaitsForTheOtherSide) {
  const auto listener = os::listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(listener);
  const loopback_address address(listener->port);
  in_place([&] {
    const os::descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const auto connected = io::connect(socket.number(), address.as_bytes());
    ASSERT_TRUE(connected) << connected.error().message();
    const auto accepted = io::accept(listener->socket.number());
    ASSERT_TRUE(accepted);
    const os::descriptor connection(*accepted);
    std::array<std::byte, 5> some{};
    EXPECT_TRUE(io::send(connection.number(), some));
    EXPECT_EQ(*io::receive(socket.number(), some), 5U);
  });
}

TEST_P(IoTest, ConnectTellsWhyNot) {
  std::uint16_t port = 0;
  {
    const auto listener = os::listen_tcp("127.0.0.1", 0);
    ASSERT_TRUE(listener);
    port = listener->port;
  }
  in_place([&] {
    const loopback_address address(port);
    const os::descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    EXPECT_EQ(io::connect(socket.number(), address.as_bytes()).error(), error_from(ECONNREFUSED));
    os::fault::arm(os::call::connect, 1, ENETUNREACH);
    EXPECT_EQ(io::connect(socket.number(), address.as_bytes()).error(), error_from(ENETUNREACH));
    os::fault::disarm();
    EXPECT_EQ(io::connect(-1, address.as_bytes()).error(), error_from(EBADF));
  });
}

// A listener whose queue is full answers nobody: the connection does not come about.
TEST_P(IoTest, ConnectEndsAtItsDeadline) {
  const os::descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  loopback_address address(0);
  socklen_t length = sizeof address.address;
  ASSERT_EQ(::bind(listener.number(), reinterpret_cast<const sockaddr*>(&address.address), length), 0);
  ASSERT_EQ(::listen(listener.number(), 0), 0);
  ASSERT_EQ(::getsockname(listener.number(), reinterpret_cast<sockaddr*>(&address.address), &length), 0);
  in_place([&] {
    std::vector<os::descriptor> sockets;
    for (int i = 0; i < 8; ++i) {
      sockets.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      const auto deadline = std::chrono::steady_clock::now() + 5ms;
      const auto connected = io::connect(sockets.back().number(), address.as_bytes(), deadline);
      if (connected) continue;
      EXPECT_EQ(connected.error(), error_from(ETIMEDOUT));
      return;
    }
    ADD_FAILURE() << "eight connections, and nobody accepts";
  });
}

// Both ends on one worker: while one waits for the other, the worker goes on.
TEST_P(IoTest, TasksOfOneWorkerTalkToEachOther) {
  constexpr int pairs = 10;
  std::vector<std::pair<os::descriptor, os::descriptor>> sockets;
  for (int i = 0; i < pairs; ++i) sockets.push_back(*os::socket_pair());
  const auto echo = [](int socket) {
    std::array<std::byte, 4096> memory;
    for (;;) {
      const auto some = io::receive(socket, memory);
      ASSERT_TRUE(some);
      if (*some == 0) return;
      ASSERT_TRUE(io::send(socket, std::span(memory).first(*some)));
    }
  };
  std::vector<task> echoes;
  for (auto& pair : sockets)
    echoes.push_back(runtime_->spawn([&echo, socket = pair.second.number()] { echo(socket); }));
  std::vector<task> askers;
  for (auto& pair : sockets) {
    askers.push_back(runtime_->spawn([socket = pair.first.number()] {
      for (unsigned i = 0; i < 50; ++i) {
        const auto question = pattern(1 + i * 37, i);
        ASSERT_TRUE(io::send(socket, question));
        std::vector<std::byte> answer(question.size());
        for (std::size_t got = 0; got < answer.size();) {
          const auto some = io::receive(socket, std::span(answer).subspan(got));
          ASSERT_TRUE(some);
          ASSERT_GT(*some, 0U);
          got += *some;
        }
        ASSERT_EQ(answer, question);
      }
    }));
  }
  for (task& each : askers) each.join();
  for (auto& pair : sockets) pair.first.close();
  for (task& each : echoes) each.join();
}

TEST_P(IoTest, CompletionsArriveWhileTheWorkerIsBusy) {
  const os::descriptor file = new_file(64_KiB);
  auto [left, right] = *os::socket_pair();
  std::atomic<bool> stop{false};
  task busy = runtime_->spawn([&] {
    while (!stop) this_task::yield();
  });
  task waiting = runtime_->spawn([&, socket = right.number()] {
    std::array<std::byte, 16> memory{};
    EXPECT_EQ(*io::receive(socket, memory), 3U);
  });
  in_place([&, socket = left.number()] {
    std::vector<std::byte> memory(4096);
    EXPECT_TRUE(io::read(file.number(), memory, 0));
    EXPECT_TRUE(io::send(socket, std::span(memory).first(3)));
  });
  waiting.join();
  stop = true;
  busy.join();
}

// More operations under way than the ring has entries.
TEST_P(IoTest, MoreOperationsThanRingEntriesAllComplete) {
  memory_budget budget("narrow");
  const os::descriptor file = new_file(4_MiB);
  {
    auto narrow =
        *runtime::create("narrow", {.workers = 1, .stack_size = 16_KiB, .budget = &budget, .ring_entries = 4});
    std::vector<task> tasks;
    for (unsigned i = 0; i < 300; ++i) {
      tasks.push_back(narrow->spawn([&file, i] {
        const auto written = pattern(4096, i);
        ASSERT_TRUE(io::write(file.number(), written, i * 4096));
        this_task::yield();
        std::vector<std::byte> read(4096);
        ASSERT_TRUE(io::read(file.number(), read, i * 4096));
        ASSERT_EQ(read, written);
      }));
    }
    for (task& each : tasks) each.join();
  }
  EXPECT_EQ(budget.used(), bytes{0});
}

// KF-34's neighbour: an operation that a task awaits inside a coroutine completes there.
TEST_P(IoTest, AwaitedInsideACoroutine) {
  const os::descriptor file = new_file(4_KiB);
  in_place([&] {
    bool done = false;
    coroutine reader([&] {
      const auto written = pattern(100, 10);
      EXPECT_TRUE(io::write(file.number(), written, 0));
      coroutine::yield();
      std::vector<std::byte> read(100);
      EXPECT_TRUE(io::read(file.number(), read, 0));
      done = read == written;
    });
    reader.resume();
    reader.resume();
    EXPECT_TRUE(done);
  });
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
//
// The service with well-behaved disks: what clients are told, who waits for whom, and how it stops.
#include "server/service_test.h"

#include <sys/un.h>

#include <thread>

#include <gtest/gtest.h>

namespace larder::server {
namespace {

using nbd::command;
using nbd::error;

class ServiceTest : public service_test {};

TEST_F(ServiceTest, ReadsWhatWasWritten) {
  start();
  nbd_client client = connect();
  EXPECT_EQ(client.size(), disk_size.count);
  EXPECT_EQ(client.write(5000, filled(100'000, 5)), error::none);
  std::vector<std::byte> data(100'000);
  EXPECT_EQ(client.read(5000, data), error::none);
  EXPECT_EQ(data, filled(100'000, 5));
  EXPECT_EQ(client.trim(8192, 4096), error::none);
  EXPECT_EQ(client.write_zeroes(20'000, 10, nbd::command_flag_no_hole), error::none);
  EXPECT_EQ(client.read(8192, std::span(data).first(4096)), error::none);
  EXPECT_EQ(data[0], std::byte{0});
  EXPECT_EQ(client.read(19'999, std::span(data).first(12)), error::none);
  EXPECT_EQ(data[0], std::byte{5});
  EXPECT_EQ(data[1], std::byte{0});
  EXPECT_EQ(data[11], std::byte{5});
}

TEST_F(ServiceTest, RefusesWhatIsOutsideTheDiskOrUnknownAndGoesOn) {
  start();
  nbd_client client = connect();
  std::vector<std::byte> data(4096);
  const std::uint64_t end = disk_size.count;
  EXPECT_EQ(client.read(end - 4095, data), error::invalid);
  EXPECT_EQ(client.read(~std::uint64_t{0}, data), error::invalid);
  EXPECT_EQ(client.write(end - 4095, data), error::no_space);
  EXPECT_EQ(client.trim(end, 1), error::invalid);
  EXPECT_EQ(client.write_zeroes(end - 1, 2), error::no_space);
  EXPECT_EQ(client.write(0, data, 0x8000), error::invalid);
  const std::uint64_t unknown = client.ask(static_cast<command>(77), 0, 0);
  const auto answered = client.next_answer();
  ASSERT_TRUE(answered);
  EXPECT_EQ(answered->cookie, unknown);
  EXPECT_EQ(answered->code, error::invalid);
  client.ask(command::read, 0, nbd::payload_most + 1);
  EXPECT_EQ(client.next_answer()->code, error::invalid);
  EXPECT_EQ(running_->now().bytes_read, 0U) << "what was refused was not read";
  EXPECT_EQ(running_->now().bytes_written, 0U);
  EXPECT_EQ(client.read(end - 4096, data), error::none);
}

TEST_F(ServiceTest, ARequestWithWrongMagicEndsTheConnection) {
  start();
  nbd_client client = connect();
  EXPECT_TRUE(client.send_bytes(filled(nbd::request_size, 0x33)));
  EXPECT_TRUE(client.hung_up());
}

TEST_F(ServiceTest, AClientThatHasSaidAllStillGetsItsAnswers) {
  start();
  nbd_client client = connect();
  for (int i = 0; i < 20; ++i) ASSERT_NE(client.ask(command::read, static_cast<std::uint64_t>(i) * 65536, 65536), 0U);
  client.finish_sending();
  for (int i = 0; i < 20; ++i) {
    const auto got = client.next_answer();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ(got->code, error::none);
  }
  EXPECT_TRUE(client.hung_up());
}

TEST_F(ServiceTest, ACachedReadOvertakesAStalledOne) {
  start();
  nbd_client client = connect();
  std::vector<std::byte> data(4096);
  ASSERT_EQ(client.read(0, data), error::none);
  a_->stalled = true;
  const std::uint64_t slow = client.ask(command::read, 4U << 20, 4096);
  ASSERT_TRUE(eventually([&] { return a_->waiting > 0; }));
  EXPECT_EQ(client.read(0, data), error::none);
  EXPECT_EQ(client.read(0, data), error::none);
  a_->stalled = false;
  const auto late = client.next_answer();
  ASSERT_TRUE(late);
  EXPECT_EQ(late->cookie, slow);
  EXPECT_EQ(late->code, error::none);
}

TEST_F(ServiceTest, AStalledDiskStallsNobodyElse) {
  start(4_MiB, 1);
  nbd_client slow = connect("a");
  a_->stalled = true;
  ASSERT_NE(slow.ask(command::read, 0, 4096), 0U);
  ASSERT_TRUE(eventually([&] { return a_->waiting > 0; }));
  std::vector<std::byte> data(1U << 20);
  for (int i = 0; i < 4; ++i) {
    nbd_client other = connect("b");
    EXPECT_EQ(other.write(0, data), error::none);
    EXPECT_EQ(other.read(1U << 20, data), error::none);
    EXPECT_EQ(other.flush(), error::none);
  }
  a_->stalled = false;
  EXPECT_TRUE(slow.next_answer());
}

TEST_F(ServiceTest, AClientThatHangsUpWhileItsDiskStallsIsForgotten) {
  start();
  nbd_client client = connect();
  a_->stalled = true;
  for (std::uint64_t i = 0; i < 6; ++i) ASSERT_NE(client.ask(command::read, i << 20, 4096), 0U);
  ASSERT_TRUE(eventually([&] { return a_->waiting > 0; }));
  client.close();
  nbd_client other = connect("b");
  std::vector<std::byte> data(4096);
  EXPECT_EQ(other.read(0, data), error::none);
  a_->stalled = false;
  other.close();
  EXPECT_TRUE(eventually([&] { return at_rest(); }));
}

TEST_F(ServiceTest, ReadOnlyDisksAreNotWritten) {
  std::vector<disk> disks;
  disks.push_back({"r", std::make_unique<test_disk>(1_MiB), true});
  const bytes limit = memory_for(4_MiB, 1);
  running_ = std::make_unique<service>(limit, layout::of(limit, 1, 1), std::move(disks));
  listen();
  nbd_client client = connect("r");
  EXPECT_NE(client.export_flags() & nbd::is_read_only, 0);
  EXPECT_EQ(client.export_flags() & (nbd::can_trim | nbd::can_write_zeroes), 0);
  EXPECT_EQ(client.write(0, filled(4096, 1)), error::not_permitted);
  EXPECT_EQ(client.trim(0, 4096), error::not_permitted);
  EXPECT_EQ(client.write_zeroes(0, 4096), error::not_permitted);
  EXPECT_EQ(client.flush(), error::none);
  std::vector<std::byte> data(4096);
  EXPECT_EQ(client.read(0, data), error::none);
  EXPECT_EQ(data, filled(4096, 0));
}

TEST_F(ServiceTest, MemoryUnderTheLeastIsRefusedAndTheLeastServes) {
  const bytes least = service::least_memory(1, 1).first;
  EXPECT_THROW(service(least / 2, layout::of(least / 2, 1, 1), {}), std::exception);
  start({0}, 1);
  nbd_client client = connect();
  std::vector<std::byte> data(3U << 20);
  EXPECT_EQ(client.write(0, filled(data.size(), 8)), error::none);
  EXPECT_EQ(client.read(0, data), error::none);
  EXPECT_EQ(data, filled(data.size(), 8));
}

// The plan grows with the memory, and must never outgrow it.
TEST_F(ServiceTest, EveryMemoryFromTheLeastOnStarts) {
  for (const unsigned workers : {1U, 2U, 4U, 16U}) {
    const bytes least = memory_for({0}, workers);
    for (bytes memory = least; memory < least * 8; memory += bytes{memory.count / 16 + 4096}) {
      EXPECT_NO_THROW(service(memory, layout::of(memory, workers, 1), {}))
          << format_bytes(memory) << " with " << workers << " workers, where the least is " << format_bytes(least);
    }
  }
}

class ServiceStopTest : public service_test {
 protected:
  ServiceStopTest() { start(); }
};

TEST_F(ServiceStopTest, WhatIsInFlightIsAnswered) {
  nbd_client client = connect();
  a_->stalled = true;
  for (std::uint64_t i = 0; i < 5; ++i) ASSERT_NE(client.ask(command::read, i << 20, 4096), 0U);
  ASSERT_TRUE(eventually([&] { return running_->now().in_flight == 5; }));
  std::vector<service::loss> losses;
  std::thread stopping([&] { losses = stop(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  a_->stalled = false;
  for (int i = 0; i < 5; ++i) {
    const auto got = client.next_answer();
    EXPECT_TRUE(got && got->code == error::none) << i;
  }
  EXPECT_TRUE(client.hung_up());
  stopping.join();
  EXPECT_TRUE(losses.empty());
  running_.reset();
}

TEST_F(ServiceStopTest, AClientThatNeverReadsIsCutWhenThePatienceEnds) {
  nbd_client client = connect();
  for (std::uint64_t i = 0; i < 8; ++i) ASSERT_NE(client.ask(command::read, 0, 4U << 20), 0U);
  ASSERT_TRUE(eventually([&] { return running_->now().in_flight > 0; }));
  const auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(stop(std::chrono::milliseconds(200)).empty());
  const auto took = std::chrono::steady_clock::now() - before;
  EXPECT_GE(took, std::chrono::milliseconds(200));
  EXPECT_LT(took, std::chrono::seconds(10));
  EXPECT_TRUE(client.hung_up());
  running_.reset();
}

TEST_F(ServiceStopTest, IdleAndHalfHeardClientsEndAtOnceAndNothingWrittenIsLost) {
  nbd_client idle = connect();
  nbd_client greeting(path_);
  nbd_client writing = connect("b");
  EXPECT_EQ(writing.write(4096, filled(4096, 6)), error::none);
  ASSERT_NE(writing.ask(command::write, 0, 4096, 0, filled(100, 1)), 0U);  // and then nothing
  ASSERT_TRUE(eventually([&] { return running_->now().in_flight == 1; }));
  const auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(stop().empty());
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
  EXPECT_EQ(b_->contents(4096, 4096), filled(4096, 6));
  EXPECT_TRUE(idle.hung_up());
  EXPECT_TRUE(greeting.hung_up());
  EXPECT_TRUE(writing.hung_up());
  running_.reset();
}

TEST_F(ServiceStopTest, NewcomersDuringTheStopAreTurnedAway) {
  base::atomic<bool> over{false};
  std::thread knocking([&] {
    while (!over) {
      const os::descriptor knocker(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      path_.copy(address.sun_path, sizeof address.sun_path - 1);
      (void)::connect(knocker.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    }
  });
  ASSERT_TRUE(eventually([&] { return running_->now().connections > 0; }));
  EXPECT_TRUE(stop().empty());
  over = true;
  knocking.join();
  running_.reset();
}

}  // namespace
}  // namespace larder::server

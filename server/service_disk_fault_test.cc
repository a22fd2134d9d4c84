// SPDX-License-Identifier: Apache-2.0
//
// Disks that fail: who is told what, and what is kept until the disk works again.
#include <gtest/gtest.h>

#include "server/service_test.h"

namespace larder::server {
namespace {

using nbd::command;
using nbd::error;

class ServiceDiskFaultTest : public service_test {
 protected:
  ServiceDiskFaultTest() { start(); }
};

TEST_F(ServiceDiskFaultTest, AFailedReadIsToldToItsClientAndTheConnectionGoesOn) {
  nbd_client client = connect();
  std::vector<std::byte> data(4096);
  a_->read_error = EIO;
  EXPECT_EQ(client.read(0, data), error::input_output);
  EXPECT_EQ(client.read(100, std::span(data).first(10)), error::input_output);
  nbd_client other = connect("b");
  EXPECT_EQ(other.read(0, data), error::none);
  a_->read_error = 0;
  EXPECT_EQ(client.read(0, data), error::none);
  EXPECT_EQ(data, filled(4096, 0));
}

TEST_F(ServiceDiskFaultTest, AReadThatFailsAfterItsHeaderWentEndsTheConnectionOnly) {
  nbd_client client = connect();
  a_->read_error = EIO;
  a_->read_error_from = 2U << 20;  // beyond what is loaded before the reply begins
  ASSERT_NE(client.ask(command::read, 0, 4U << 20), 0U);
  EXPECT_FALSE(client.next_answer());
  EXPECT_TRUE(eventually([&] { return at_rest(); }));

  nbd_client next = connect();
  std::vector<std::byte> data(4096);
  EXPECT_EQ(next.read(0, data), error::none);
  EXPECT_EQ(next.read(3U << 20, data), error::input_output);
}

TEST_F(ServiceDiskFaultTest, AReadThatFailsWhereItsReplyBeginsIsToldWhole) {
  nbd_client client = connect();
  a_->read_error = EIO;
  a_->read_error_from = 512U << 10;
  std::vector<std::byte> data(4U << 20);
  EXPECT_EQ(client.read(0, data), error::input_output);
  a_->read_error = 0;
  EXPECT_EQ(client.read(0, data), error::none);
}

// KF-56.
TEST_F(ServiceDiskFaultTest, EveryFlushTellsOfAFailedWriteUntilTheDiskWorksAgain) {
  nbd_client client = connect();
  a_->write_error = EIO;
  EXPECT_EQ(client.write(8192, filled(4096, 7)), error::none);  // cached
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.flush(), error::input_output);
  EXPECT_GT(running_->now().pages.pages_dirty, 0U);
  nbd_client other = connect();
  EXPECT_EQ(other.flush(), error::input_output);  // whoever asks
  std::vector<std::byte> data(4096);
  EXPECT_EQ(other.read(8192, data), error::none);
  EXPECT_EQ(data, filled(4096, 7));

  a_->write_error = 0;
  EXPECT_EQ(client.flush(), error::none);
  EXPECT_EQ(a_->contents(8192, 4096), filled(4096, 7));
  EXPECT_EQ(running_->now().pages.pages_dirty, 0U);
}

TEST_F(ServiceDiskFaultTest, AFailedFlushOfTheDiskIsTold) {
  nbd_client client = connect();
  a_->flush_error = EIO;
  EXPECT_EQ(client.write(0, filled(512, 1)), error::none);
  EXPECT_EQ(client.flush(), error::input_output);
  EXPECT_EQ(client.write(0, filled(512, 2), nbd::command_flag_fua), error::input_output);
  a_->flush_error = 0;
  EXPECT_EQ(client.flush(), error::none);
  EXPECT_EQ(a_->contents(0, 512), filled(512, 2));
}

TEST_F(ServiceDiskFaultTest, AWriteThatMustBeDurableFailsWithTheDisk) {
  nbd_client client = connect();
  a_->write_error = EIO;
  EXPECT_EQ(client.write(0, filled(4096, 3), nbd::command_flag_fua), error::input_output);
  EXPECT_EQ(client.write_zeroes(100, 50, nbd::command_flag_fua), error::input_output);
  a_->write_error = 0;
  EXPECT_EQ(client.flush(), error::none);
}

TEST_F(ServiceDiskFaultTest, AFullDiskIsCalledFull) {
  nbd_client client = connect();
  a_->write_error = ENOSPC;
  EXPECT_EQ(client.write(0, filled(4096, 3), nbd::command_flag_fua), error::no_space);
  EXPECT_EQ(client.flush(), error::no_space);
  a_->write_error = EROFS;
  EXPECT_EQ(client.flush(), error::not_permitted);
  a_->write_error = 0;
  EXPECT_EQ(client.flush(), error::none);
}

TEST_F(ServiceDiskFaultTest, APartOfAPageThatCannotBeReadIsNotWritten) {
  nbd_client client = connect();
  a_->read_error = EIO;
  EXPECT_EQ(client.write(100, filled(10, 3)), error::input_output);
  EXPECT_EQ(client.write(4000, filled(8192, 3)), error::input_output);  // its first and last pages are in part
  a_->read_error = 0;
  EXPECT_EQ(client.write(100, filled(10, 4)), error::none);
  std::vector<std::byte> data(10);
  EXPECT_EQ(client.read(100, data), error::none);
  EXPECT_EQ(data, filled(10, 4));
}

// A cache full of what one disk will not take must not take the other disk's clients down with it for good.
TEST_F(ServiceDiskFaultTest, ADiskThatTakesNothingFillsTheCacheAndTheServerRecoversWithIt) {
  nbd_client client = connect();
  a_->write_error = EIO;
  const auto chunk = filled(64U << 10, 9);
  std::uint64_t written = 0;
  bool refused = false;
  for (std::uint64_t at = 0; at < disk_size.count && !refused; at += chunk.size()) {
    const auto outcome = client.write(at, chunk);
    ASSERT_TRUE(outcome) << "at " << at;
    refused = *outcome != error::none;
    if (!refused) written += chunk.size();
  }
  EXPECT_TRUE(refused) << "8 MiB fit into 4 MiB";
  EXPECT_EQ(client.flush(), error::input_output);
  a_->write_error = 0;
  EXPECT_EQ(client.flush(), error::none);
  EXPECT_EQ(a_->contents(0, written), filled(written, 9));
  nbd_client other = connect("b");
  std::vector<std::byte> data(1U << 20);
  EXPECT_EQ(other.read(0, data), error::none);
}

TEST_F(ServiceDiskFaultTest, WhatCouldNotBeWrittenAtTheEndIsReportedByName) {
  nbd_client client = connect("b");
  b_->write_error = ENOSPC;
  EXPECT_EQ(client.write(0, filled(4096, 3)), error::none);
  client.close();
  ASSERT_TRUE(eventually([&] { return at_rest(); }));
  const auto losses = stop();
  ASSERT_EQ(losses.size(), 1U);
  EXPECT_EQ(losses[0].disk, "b");
  EXPECT_EQ(losses[0].error, error_from(ENOSPC));
  running_.reset();
}

}  // namespace
}  // namespace larder::server

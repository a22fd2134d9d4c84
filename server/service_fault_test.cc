// SPDX-License-Identifier: Apache-2.0
//
// Each system call of the server fails at its n-th use, for n = 1, 2, 3, … until a whole session passes: the server
// goes on, and nothing of what it held for the session stays (KF-48).
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>

#include "os/fault.h"
#include "server/service_test.h"

namespace larder::server {
namespace {

using nbd::command;
using nbd::error;
using os::call;

std::size_t entries_of(const char* folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}
std::size_t open_descriptors() { return entries_of("/proc/self/fd"); }
std::size_t threads() { return entries_of("/proc/self/task"); }

class ServiceFaultTest : public service_test {
 protected:
  ServiceFaultTest() {
    // Disks of real files, so that reading and writing them are system calls too.
    std::vector<disk> disks;
    for (const char* name : {"a", "b"}) {
      auto file = os::open_nameless_file(testing::TempDir(), disk_size);
      EXPECT_TRUE(file) << file.error().message();
      auto source = file_backing::adopt(file->release(), false);
      EXPECT_TRUE(source) << source.error().message();
      disks.push_back({name, *std::move(source), false});
    }
    const bytes limit = memory_for(1_MiB, 2);
    running_ = std::make_unique<service>(limit, layout::of(limit, 2, 1), std::move(disks));
    listen();
    session();
    EXPECT_TRUE(eventually([&] { return at_rest(); }));
    before_ = running_->now();
  }
  ~ServiceFaultTest() override { os::fault::disarm(); }

  // What a client does, as far as it comes.
  void session() {
    nbd_client client(path_);
    if (!client.go("a")) return;
    std::vector<std::byte> data(300'000);
    if (!client.write(1000, filled(200'000, 1))) return;
    if (!client.read(4U << 20, data)) return;
    if (!client.flush()) return;
    if (!client.write(6U << 20, filled(5000, 2), nbd::command_flag_fua)) return;
    if (!client.trim(8192, 65536)) return;
    if (!client.read(0, data)) return;
    for (int i = 0; i < 8; ++i) {
      if (client.ask(command::read, static_cast<std::uint64_t>(i) << 20, 65536) == 0) return;
    }
    for (int i = 0; i < 8; ++i) {
      if (!client.next_answer()) return;
    }
    if (!client.flush()) return;
  }

  void expect_all_is_well() {
    EXPECT_TRUE(eventually([&] { return at_rest(); }));
    nbd_client client(path_);
    ASSERT_TRUE(client.go("b"));
    std::vector<std::byte> data(10'000);
    EXPECT_EQ(client.write(777, filled(10'000, 9), nbd::command_flag_fua), error::none);
    EXPECT_EQ(client.read(777, data), error::none);
    EXPECT_EQ(data, filled(10'000, 9));
    client.close();
    nbd_client other(path_);
    ASSERT_TRUE(other.go("a"));
    EXPECT_EQ(other.flush(), error::none);  // what a fault kept from the disk goes there now
    other.close();
    EXPECT_TRUE(eventually([&] { return at_rest() && kinds_are_back(); }));
    EXPECT_EQ(running_->now().pages.pages_dirty, 0U);
  }

  // Of memory kinds all but the pages, which stay as long as there is room.
  bool kinds_are_back() const {
    const service::figures now = running_->now();
    for (std::size_t i = 0; i < now.kinds.size(); ++i) {
      if (now.kinds[i].kind != "pages" && now.kinds[i].used > before_.kinds[i].used) return false;
    }
    return now.pages.pins_admitted == 0;
  }

  void fail_each_use(call which, int error_number, bool from_then_on = false) {
    for (std::uint64_t n = 1;; ++n) {
      SCOPED_TRACE("use " + std::to_string(n) + " fails");
      os::fault::arm(which, n, error_number, from_then_on);
      session();
      os::fault::disarm();
      expect_all_is_well();
      if (!os::fault::fired() || HasFailure()) break;
      ASSERT_LT(n, 2000U);
    }
  }

  service::figures before_;
};

TEST_F(ServiceFaultTest, Read) { fail_each_use(call::read, EIO); }
TEST_F(ServiceFaultTest, ReadFromThenOn) { fail_each_use(call::read, EIO, true); }
TEST_F(ServiceFaultTest, Write) { fail_each_use(call::write, EIO); }
TEST_F(ServiceFaultTest, WriteFromThenOn) { fail_each_use(call::write, ENOSPC, true); }
TEST_F(ServiceFaultTest, Sync) { fail_each_use(call::sync, EIO); }
TEST_F(ServiceFaultTest, Allocate) { fail_each_use(call::allocate, EIO); }
TEST_F(ServiceFaultTest, AllocateThatNeverWorked) { fail_each_use(call::allocate, EOPNOTSUPP, true); }
TEST_F(ServiceFaultTest, Receive) { fail_each_use(call::receive, ECONNRESET); }
TEST_F(ServiceFaultTest, ReceiveWithoutMemory) { fail_each_use(call::receive, ENOMEM); }
TEST_F(ServiceFaultTest, Send) { fail_each_use(call::send, EPIPE); }
TEST_F(ServiceFaultTest, SendFromThenOn) { fail_each_use(call::send, ENOBUFS, true); }
TEST_F(ServiceFaultTest, Map) { fail_each_use(call::map, ENOMEM); }
TEST_F(ServiceFaultTest, MapFromThenOn) { fail_each_use(call::map, ENOMEM, true); }
TEST_F(ServiceFaultTest, Guard) { fail_each_use(call::guard, ENOMEM); }
TEST_F(ServiceFaultTest, Advise) { fail_each_use(call::advise, ENOMEM); }

// A call that would block is no fault: it is tried again, and the session is whole.
TEST_F(ServiceFaultTest, SendAndReceiveThatWouldBlock) {
  for (const call which : {call::send, call::receive}) fail_each_use(which, EAGAIN);
}

TEST_F(ServiceFaultTest, AcceptThatFailsDoesNotCloseTheDoor) {
  for (const int problem : {EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPROTO, EPERM, ENETDOWN, EIO}) {
    SCOPED_TRACE(problem);
    os::fault::arm(call::accept, 1, problem);
    session();
    os::fault::disarm();
    expect_all_is_well();
  }
}

TEST_F(ServiceFaultTest, WhoComesWhileDescriptorsAreShortIsServedLater) {
  os::fault::arm(call::accept, 1, EMFILE, true);
  nbd_client client(path_);
  EXPECT_TRUE(eventually([] { return os::fault::fired(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  EXPECT_EQ(running_->now().connections, 0U);
  os::fault::disarm();
  EXPECT_TRUE(client.go("a"));
}

TEST_F(ServiceFaultTest, TheLastFlushThatFailsIsALossAndTheStopEnds) {
  nbd_client client(path_);
  ASSERT_TRUE(client.go("a"));
  EXPECT_EQ(client.write(0, filled(4096, 1)), error::none);
  client.close();
  ASSERT_TRUE(eventually([&] { return at_rest(); }));
  os::fault::arm(call::write, 1, EIO, true);
  const auto losses = stop();
  os::fault::disarm();
  ASSERT_EQ(losses.size(), 1U);
  EXPECT_EQ(losses[0].disk, "a");
  EXPECT_EQ(losses[0].error, error_from(EIO));
  running_.reset();
}

class ServiceStartFaultTest : public ::testing::TestWithParam<call> {};

// A start that fails says so by an exception and leaves no thread, no descriptor and, by the budgets' own checks, no
// memory.
TEST_P(ServiceStartFaultTest, LeavesNothing) {
  const bytes limit = memory_for(1_MiB, 2);
  const auto two_disks = [] {
    std::vector<disk> disks;
    for (const char* name : {"a", "b"}) disks.push_back({name, std::make_unique<test_disk>(1_MiB), false});
    return disks;
  };
  service(limit, layout::of(limit, 2, 1), two_disks());  // what is made once in a process is there now
  const std::size_t descriptors_before = open_descriptors();
  const std::size_t threads_before = threads();
  unsigned refused = 0;
  for (std::uint64_t n = 1;; ++n) {
    SCOPED_TRACE("use " + std::to_string(n) + " fails");
    auto disks = two_disks();
    os::fault::arm(GetParam(), n, GetParam() == call::thread_create ? EAGAIN : ENOMEM);
    try {
      service tested(limit, layout::of(limit, 2, 1), std::move(disks));
      os::fault::disarm();
      EXPECT_TRUE(tested.stop(std::chrono::seconds(1)).empty());
    } catch (const std::exception& problem) {
      EXPECT_STRNE(problem.what(), "");
      ++refused;
    }
    os::fault::disarm();
    // A thread that was joined may be seen for a moment longer.
    EXPECT_TRUE(eventually([&] { return threads() <= threads_before; }));
    EXPECT_TRUE(eventually([&] { return open_descriptors() == descriptors_before; }));
    if (!os::fault::fired()) break;
    ASSERT_LT(n, 2000U);
  }
  if (GetParam() != call::advise && GetParam() != call::guard) {
    EXPECT_GT(refused, 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, ServiceStartFaultTest,
                         ::testing::Values(call::map, call::guard, call::advise, call::event, call::ring_setup,
                                           call::thread_create),
                         [](const auto& tested) {
                           switch (tested.param) {
                             case call::map:
                               return "Map";
                             case call::guard:
                               return "Guard";
                             case call::advise:
                               return "Advise";
                             case call::event:
                               return "Event";
                             case call::ring_setup:
                               return "RingSetup";
                             default:
                               return "ThreadCreate";
                           }
                         });

}  // namespace
}  // namespace larder::server

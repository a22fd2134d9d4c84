// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "base/sanitizers.h"
#include "server/service.h"
#include "tests/support/eventually.h"
#include "tests/support/nbd_client.h"

namespace larder::server {

using tests::eventually;
using tests::nbd_client;

// A disk in memory that fails or stalls when told to. A stall parks the task, as a slow device would.
class test_disk final : public backing {
 public:
  explicit test_disk(bytes size) : memory_(*memory_backing::create(size)) {}

  bytes size() const override { return memory_->size(); }
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override {
    stall(offset);
    if (read_error != 0 && offset >= read_error_from) return error_from(read_error);
    return memory_->read(into, offset);
  }
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override {
    stall(offset);
    if (write_error != 0) return error_from(write_error);
    return memory_->write(from, offset);
  }
  result<void> discard(std::uint64_t offset, bytes length) override { return memory_->discard(offset, length); }
  result<void> zero(std::uint64_t offset, bytes length) override { return memory_->zero(offset, length); }
  result<void> flush() override { return flush_error != 0 ? error_from(flush_error) : result<void>(); }

  // What is on the disk itself.
  std::vector<std::byte> contents(std::uint64_t offset, std::size_t length) {
    std::vector<std::byte> some(length);
    const iovec vector{some.data(), some.size()};
    EXPECT_TRUE(memory_->read(std::span(&vector, 1), offset));
    return some;
  }

  base::atomic<int> read_error{0};
  base::atomic<std::uint64_t> read_error_from{0};  // what lies before can be read
  base::atomic<int> write_error{0};
  base::atomic<int> flush_error{0};
  base::atomic<bool> stalled{false};
  base::atomic<std::uint64_t> stalled_from{0};
  base::atomic<unsigned> waiting{0};  // who is stalled now

 private:
  void stall(std::uint64_t offset) {
    if (!stalled || offset < stalled_from) return;
    ++waiting;
    while (stalled) this_task::sleep_for(std::chrono::milliseconds(1));
    --waiting;
  }

  const std::unique_ptr<memory_backing> memory_;
};

inline std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

// The least that works with so many workers, or `wanted` if that is more. A sanitizer's stacks are so large that the
// plan's shares do not add up near the least; twice as much is enough.
inline bytes memory_for(bytes wanted, unsigned workers) {
#if defined(LARDER_ADDRESS_SANITIZER) || defined(LARDER_THREAD_SANITIZER)
  constexpr std::uint64_t times = 2;
#else
  constexpr std::uint64_t times = 1;
#endif
  return std::max(wanted, service::least_memory(workers, 1).first * times);
}

// A service with two disks, "a" and "b" of 8 MiB, that listens on a unix socket. When a test ends, it must have come
// back to where it began, and stop without a loss.
class service_test : public testing::Test {
 protected:
  static constexpr bytes disk_size = 8_MiB;

  ~service_test() override {
    if (running_ != nullptr) stop_well();
  }

  void start(bytes memory = 4_MiB, unsigned workers = 2) {
    std::vector<disk> disks;
    for (const char* name : {"a", "b"}) {
      auto made = std::make_unique<test_disk>(disk_size);
      (*name == 'a' ? a_ : b_) = made.get();
      disks.push_back({name, std::move(made), false});
    }
    const bytes limit = memory_for(memory, workers);
    running_ = std::make_unique<service>(limit, layout::of(limit, workers, 1), std::move(disks));
    listen();
  }

  void listen() {
    path_ = testing::TempDir() + "larder-" + std::to_string(::getpid()) + "-" +
            std::to_string(reinterpret_cast<std::uintptr_t>(this)) + ".sock";
    auto listener = os::listen_unix(path_);
    ASSERT_TRUE(listener) << listener.error().message();
    running_->listen(*std::move(listener));
  }

  // A client in transmission.
  nbd_client connect(std::string_view name = "a") {
    nbd_client client(path_);
    EXPECT_TRUE(client.go(name));
    return client;
  }

  // Whether nothing of any client is left.
  bool at_rest() const {
    const service::figures now = running_->now();
    return now.connections == 0 && now.in_flight == 0 && now.handles_used == 0;
  }

  std::vector<service::loss> stop(std::chrono::milliseconds patience = std::chrono::seconds(10)) {
    auto losses = running_->stop(patience);
    const service::figures last = running_->now();
    EXPECT_EQ(last.handles_used, 0U);
    EXPECT_EQ(last.pages.pages_dirty, 0U);
    EXPECT_LE(last.memory_peak, last.memory_limit);
    os::remove_socket_file(path_);
    return losses;
  }

  void stop_well() {
    EXPECT_TRUE(eventually([&] { return at_rest(); }));
    for (const service::loss& lost : stop()) ADD_FAILURE() << lost.disk << ": " << lost.error.message();
    running_.reset();  // dies if anything is still charged
  }

  std::unique_ptr<service> running_;
  std::string path_;
  test_disk* a_ = nullptr;  // they live in the service
  test_disk* b_ = nullptr;
};

}  // namespace larder::server

// SPDX-License-Identifier: Apache-2.0
//
// Many clients at once in little memory, each with a part of the disk to itself and an array of bytes that says what
// must be there; others hang up wherever it hurts.
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "server/service_test.h"
#include "tests/support/model_random.h"

namespace larder::server {
namespace {

using nbd::command;
using nbd::error;

constexpr std::uint64_t part_size = 1U << 20;
constexpr std::uint64_t block_size = 64U << 10;
constexpr std::uint64_t blocks = part_size / block_size;
constexpr unsigned steady_clients = 5;
constexpr std::uint64_t nobodys_part = 7 * part_size;  // where those who hang up write

class ServiceModelTest : public service_test {
 protected:
  // A group of requests, each in a block of its own, so that their order does not matter.
  void one_group(nbd_client& client, std::uint64_t start, std::vector<std::byte>& model, tests::model_random& random) {
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint32_t>> reads;  // by cookie
    const std::uint64_t count = random.between(1, blocks);
    const std::uint64_t first_block = random.below(blocks);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t block = (first_block + i) % blocks * block_size;
      const std::uint64_t at = block + random.below(block_size);
      auto length = static_cast<std::uint32_t>(random.between(1, block + block_size - at));
      if (random.one_in(2)) length = std::min(length, 4096U);
      const auto here = std::span(model).subspan(at, length);
      const std::uint16_t fua = random.one_in(8) ? nbd::command_flag_fua : std::uint16_t{0};
      std::uint64_t cookie = 0;
      switch (random.below(8)) {
        case 0:
          std::ranges::fill(here, std::byte{0});
          cookie = client.ask(random.one_in(2) ? command::trim : command::write_zeroes, start + at, length, fua);
          break;
        case 1:
          cookie = client.ask(command::flush, 0, 0);
          break;
        case 2:
        case 3:
        case 4:
          for (std::byte& each : here) each = static_cast<std::byte>(random.below(256));
          cookie = client.ask(command::write, start + at, length, fua, here);
          break;
        default:
          cookie = client.ask(command::read, start + at, length);
          reads[cookie] = {at, length};
      }
      ASSERT_NE(cookie, 0U);
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto got = client.next_answer();
      ASSERT_TRUE(got);
      ASSERT_EQ(got->code, error::none);
      if (const auto read = reads.find(got->cookie); read != reads.end()) {
        const auto [at, length] = read->second;
        ASSERT_TRUE(std::ranges::equal(got->data, std::span(model).subspan(at, length))) << "at " << start + at;
      }
    }
  }

  void steady(unsigned number, unsigned groups) {
    tests::model_random random(number);
    std::vector<std::byte> model(part_size);
    for (unsigned done = 0; done < groups;) {
      nbd_client client = connect();
      for (std::uint64_t more = random.between(1, 20); more > 0 && done < groups; --more, ++done) {
        ASSERT_NO_FATAL_FAILURE(one_group(client, number * part_size, model, random));
      }
    }
    nbd_client client = connect();
    std::vector<std::byte> all(part_size);
    ASSERT_EQ(client.read(number * part_size, all), error::none);
    EXPECT_EQ(all, model);
  }

  // Comes, asks, and goes in the middle of something, until told to stop.
  void fickle(unsigned number, const base::atomic<bool>& over) {
    tests::model_random random(number);
    while (!over) {
      nbd_client client(path_);
      if (random.one_in(6)) continue;
      if (random.one_in(6)) {
        client.send_bytes(filled(random.between(1, 40), static_cast<int>(random.below(256))));
        continue;
      }
      if (!client.go("a")) continue;
      const std::uint64_t reads = random.below(20);
      for (std::uint64_t i = 0; i < reads; ++i) {
        client.ask(command::read, random.below(6 * part_size), static_cast<std::uint32_t>(random.between(1, 1U << 20)));
      }
      if (reads > 0 && random.one_in(2)) client.next_answer();
      const auto length = static_cast<std::uint32_t>(random.between(1, 100'000));
      client.ask(command::write, nobodys_part, length, 0, filled(random.below(length), 1));
    }
  }
};

TEST_F(ServiceModelTest, ManyClientsSeeTheirBytesWhileOthersHangUpAnywhere) {
  start(1_MiB, 2);
  base::atomic<bool> over{false};
  std::vector<std::thread> others;
  for (unsigned i = 0; i < 3; ++i) others.emplace_back([&, i] { fickle(100 + i, over); });
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < steady_clients; ++i) clients.emplace_back([&, i] { steady(i, 120); });
  for (std::thread& each : clients) each.join();
  over = true;
  for (std::thread& each : others) each.join();
  EXPECT_TRUE(eventually([&] { return at_rest(); }));
  EXPECT_EQ(running_->now().pages.pins_admitted, 0U);
}

// Starting and stopping while clients come, ask and are cut: nothing is left, whatever the moment.
TEST_F(ServiceModelTest, StopsAtAnyMoment) {
  tests::model_random random;
  for (int round = 0; round < 15; ++round) {
    start(1_MiB, 2);
    std::vector<nbd_client> clients;
    for (int i = 0; i < 6; ++i) {
      clients.emplace_back(path_);
      if (random.one_in(4)) continue;
      ASSERT_TRUE(clients.back().go(random.one_in(2) ? "a" : "b"));
      for (std::uint64_t more = random.below(12); more > 0; --more) {
        const auto length = static_cast<std::uint32_t>(random.between(1, 300'000));
        if (random.one_in(2)) {
          ASSERT_NE(clients.back().ask(command::read, random.below(part_size), length), 0U);
        } else {
          ASSERT_NE(clients.back().ask(command::write, random.below(part_size), length, 0, filled(length, 1)), 0U);
        }
        if (more == 3) clients.back().next_answer();
      }
    }
    EXPECT_TRUE(stop(std::chrono::milliseconds(random.below(30))).empty());
    running_.reset();
  }
}

}  // namespace
}  // namespace larder::server

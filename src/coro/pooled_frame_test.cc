// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <barrier>
#include <coroutine>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/pooled_frame.h>

#include "tests/support/keeper_at_rest.h"
#include "tests/support/one_cpu.h"
#include "tests/support/stat_value.h"

namespace larder {
namespace {

// A coroutine that its owner resumes; a call that finds no memory gives an empty one.
class plain {
 public:
  struct promise_type : pooled_frame {
    static void* operator new(std::size_t size) noexcept { return pooled_frame::operator new(size, std::nothrow); }
    static plain get_return_object_on_allocation_failure() { return plain({}); }
    plain get_return_object() { return plain(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::abort(); }
  };
  plain(plain&& other) noexcept : coroutine(std::exchange(other.coroutine, {})) {}
  plain& operator=(plain&&) = delete;
  ~plain() {
    if (coroutine) coroutine.destroy();
  }
  std::coroutine_handle<promise_type> coroutine;

 private:
  explicit plain(std::coroutine_handle<promise_type> owned) : coroutine(owned) {}
};

// Of a frame that holds an array of that length.
template <std::size_t Size>
plain sum_of(std::uint64_t& sum) {
  std::array<unsigned char, Size> content{};
  for (std::size_t i = 0; i < Size; ++i) content[i] = static_cast<unsigned char>(i);
  co_await std::suspend_always();
  for (const unsigned char byte : content) sum += byte;
}

// Static order: coroutines are called before main, and ended after it.
std::uint64_t sum_before_main = 0;
const plain early = [] {
  plain made = sum_of<16>(sum_before_main);
  made.coroutine.resume();
  made.coroutine.resume();
  return made;
}();

std::uint64_t figure(std::size_t size, std::string_view name) {
  return tests::stat_value("object_cache/frames/" + std::to_string(size), name).value_or(0);
}

// Of all sizes together: how large a coroutine's frame is, is the compiler's to say.
std::uint64_t frames_constructed() {
  std::uint64_t sum = 0;
  for (std::size_t size = 64; size <= 32'768; size += 64) sum += figure(size, "constructed");
  return sum;
}

class PooledFrameTest : public testing::Test {
 protected:
  ~PooledFrameTest() override {
    EXPECT_EQ(out(), out_before);
    pooled_frame::frames().audit();
  }
  static std::uint64_t out() {
    return pooled_frame::frames().stats().objects_out + pooled_frame::frames().stats().spans_out;
  }

  const tests::keeper_at_rest at_rest;
  const std::uint64_t out_before = out();
};

TEST_F(PooledFrameTest, WorksBeforeMain) {
  EXPECT_EQ(sum_before_main, 120U);
  EXPECT_TRUE(early.coroutine.done());
}

TEST_F(PooledFrameTest, EachSizeIsServedAtACacheLine) {
  std::vector<std::pair<void*, std::size_t>> frames;
  for (std::size_t size = 1; size <= 40'000; size += size < 5000 ? 7 : 997) {
    void* frame = pooled_frame::operator new(size);
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(frame) % 64, 0U) << size;
    std::memset(frame, static_cast<int>(size), size);
    frames.emplace_back(frame, size);
  }
  for (const auto& [frame, size] : frames) {
    const std::vector<unsigned char> expected(size, static_cast<unsigned char>(size));
    EXPECT_EQ(std::memcmp(frame, expected.data(), size), 0) << "overlaps another";
    pooled_frame::operator delete(frame, size);
  }
}

TEST_F(PooledFrameTest, ClassesAreBy64BytesUpTo1KiB) {
  for (const auto& [size, given] : {std::pair<std::size_t, std::size_t>{1, 64},
                                    {64, 64},
                                    {65, 128},
                                    {449, 512},
                                    {961, 1024},
                                    {1025, 1152},
                                    {4096, 4096},
                                    {32'768, 32'768}}) {
    const std::uint64_t gets = figure(given, "gets");
    pooled_frame::operator delete(pooled_frame::operator new(size), size);
    EXPECT_EQ(figure(given, "gets"), gets + 1) << size;
  }
}

TEST_F(PooledFrameTest, FramesOfAllSizesKeepTheirContents) {
  std::uint64_t sum = 0;
  std::vector<plain> running;
  running.push_back(sum_of<1>(sum));
  running.push_back(sum_of<100>(sum));
  running.push_back(sum_of<1000>(sum));
  running.push_back(sum_of<10'000>(sum));
  running.push_back(sum_of<50'000>(sum));
  EXPECT_EQ(out() - out_before, running.size());
  for (int round = 0; round < 2; ++round) {
    for (plain& one : running) one.coroutine.resume();
  }
  std::uint64_t expected = 0;
  for (const std::size_t size : {1U, 100U, 1000U, 10'000U, 50'000U}) {
    for (std::size_t i = 0; i < size; ++i) expected += i % 256;
  }
  EXPECT_EQ(sum, expected);
}

TEST_F(PooledFrameTest, AFrameThatEndsIsTheNextOne) {
  const tests::stays_on_one_cpu pinned;
  std::uint64_t sum = 0;
  { const plain warm = sum_of<2000>(sum); }
  const std::uint64_t constructed = frames_constructed();
  EXPECT_GT(constructed, 0U);
  for (int i = 0; i < 10'000; ++i) {
    const plain one = sum_of<2000>(sum);
    one.coroutine.resume();
  }
  EXPECT_EQ(frames_constructed(), constructed);
}

TEST_F(PooledFrameTest, ALargeFrameIsChargedWhileItLives) {
  const bytes before = memory_budget::process().used();
  void* frame = pooled_frame::operator new(100'000);
  EXPECT_EQ(memory_budget::process().used() - before, 100_KiB);
  pooled_frame::operator delete(frame, 100'000);
  EXPECT_EQ(memory_budget::process().used(), before);
}

TEST_F(PooledFrameTest, AFrameMayEndOnAnotherThread) {
  std::uint64_t sum = 0;
  for (int i = 0; i < 20; ++i) {
    std::vector<plain> running;
    for (int k = 0; k < 500; ++k) running.push_back(sum_of<100>(sum));
    std::thread([moved = std::move(running)]() mutable { moved.clear(); }).join();
  }
}

TEST_F(PooledFrameTest, ManyThreadsMayNeedAClassFirst) {
  constexpr std::size_t size = 19'000;  // of a class that has no cache yet, if this test runs alone
  const std::uint64_t gets = figure(20'480, "gets");
  std::barrier ready(4);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&ready] {
      ready.arrive_and_wait();
      for (int k = 0; k < 1000; ++k) pooled_frame::operator delete(pooled_frame::operator new(size), size);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(figure(20'480, "gets"), gets + 4000);
  EXPECT_EQ(figure(20'480, "objects_out"), 0U);
}

// Leaves nothing of the process's budget to others.
class full_process_budget {
 public:
  full_process_budget() {
    pooled_frame::frames().trim();
    memory_budget& budget = memory_budget::process();
    rest_ = budget.limit() - budget.used();
    EXPECT_TRUE(budget.try_charge(rest_));
  }
  ~full_process_budget() { memory_budget::process().release(rest_); }

 private:
  bytes rest_;
};

TEST_F(PooledFrameTest, WithoutRoomACallThrowsAndLeavesNothing) {
  const bytes before = memory_budget::process().used();
  {
    const full_process_budget full;
    // What slabs have room for that hold a frame already.
    std::vector<std::pair<void*, std::size_t>> frames;
    for (const std::size_t size : {100U, 5000U, 27'000U, 100'000U}) {
      EXPECT_THROW(for (;;) frames.emplace_back(pooled_frame::operator new(size), size), std::bad_alloc);
      EXPECT_EQ(pooled_frame::operator new(size, std::nothrow), nullptr) << size;
    }
    std::uint64_t sum = 0;
    std::vector<plain> running;
    do {
      running.push_back(sum_of<100>(sum));
    } while (running.back().coroutine);
    for (const auto& [frame, size] : frames) pooled_frame::operator delete(frame, size);
  }
  EXPECT_LE(memory_budget::process().used(), before);
  std::uint64_t sum = 0;
  const plain again = sum_of<100>(sum);
  EXPECT_TRUE(again.coroutine);
}

TEST(PooledFrameDeathTest, AFrameThatEndsTwiceIsFoundByLarderDebug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ::setenv("LARDER_DEBUG", "frames/*=ownership", 1);
  EXPECT_DEATH(
      {
        void* frame = pooled_frame::operator new(100);
        pooled_frame::operator delete(frame, 100);
        pooled_frame::operator delete(frame, 100);
      },
      "cache \"frames/128\": put of 0x[0-9a-f]+, which is free");
  ::unsetenv("LARDER_DEBUG");
}

}  // namespace
}  // namespace larder

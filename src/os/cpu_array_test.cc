// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_array.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/cpu_array.h>

#include "os/cpu.h"
#include "os/sequence_abort_test.h"

namespace larder::os {
namespace {

constexpr std::size_t entries = 256;

// A value that stands for the n-th object; never read through.
void* object(std::size_t number) { return reinterpret_cast<void*>(0x1000 + number * 8); }
void* const guard_word = reinterpret_cast<void*>(0xdead'beef'0000'0001);

const larder::detail::cpu_front& as_public(const array_front& front) {
  return reinterpret_cast<const larder::detail::cpu_front&>(front);
}

// One array, which every CPU is led to (only one thread uses it), between guard words.
class CpuArrayTest : public testing::Test {
 protected:
  void SetUp() override {
    if (sequences() == sequence_mode::sharded) GTEST_SKIP() << "no restartable sequences: " << sequences_description();
    static_assert(sizeof(cpu_array) == 2 * sizeof(void*));
    memory_.fill(guard_word);
    array_ = ::new (&memory_[guards]) cpu_array{};
    table_ = std::make_unique<cpu_array_table[]>(static_cast<std::size_t>(possible_cpus()));
    for (int cpu = 0; cpu < possible_cpus(); ++cpu) table_[static_cast<std::size_t>(cpu)].store(array_);
    set_front_cpu(front_);
    front_.pop_table.store(table_.get());
    front_.push_table.store(table_.get());
  }
  void TearDown() override {
    if (array_ == nullptr) return;
    for (std::size_t i = 0; i < guards; ++i) {
      EXPECT_EQ(memory_[i], guard_word) << "a word before the array was written";
      EXPECT_EQ(memory_[memory_.size() - 1 - i], guard_word) << "a word behind the array was written";
    }
  }

  // The array holds objects 0 to length − 1 and has served `gets`; everything above is as it was.
  void fill(std::size_t length, std::uint64_t gets = 0, std::size_t capacity = entries) {
    for (std::size_t i = 0; i < entries; ++i) array_->objects()[i] = i < length ? object(i) : guard_word;
    array_->capacity.store(static_cast<std::uint32_t>(capacity));
    array_->word.store(length | gets << cpu_array::gets_shift);
  }
  void expect_word(std::size_t length, std::uint64_t gets) const {
    EXPECT_EQ(array_->word.load(), length | gets << cpu_array::gets_shift);
    EXPECT_EQ(array_->locked.load(), 0U);
  }
  void expect_objects(std::size_t from, std::size_t to) const {
    for (std::size_t i = from; i < to; ++i) EXPECT_EQ(array_->objects()[i], object(i)) << i;
  }
  void expect_untouched(std::size_t from) const {
    for (std::size_t i = from; i < entries; ++i) EXPECT_EQ(array_->objects()[i], guard_word) << i;
  }
  const larder::detail::cpu_front& users() const { return as_public(front_); }

  static constexpr std::size_t guards = 4;
  std::array<void*, entries + 2 + 2 * guards> memory_{};
  cpu_array* array_ = nullptr;
  std::unique_ptr<cpu_array_table[]> table_;
  array_front front_{};
};

[[gnu::noinline]] void* run_pop(const larder::detail::cpu_front& front) { return larder::detail::pop_cached(front); }
[[gnu::noinline]] bool run_push(const larder::detail::cpu_front& front, void* pushed) {
  return larder::detail::push_cached(front, pushed);
}

TEST_F(CpuArrayTest, PopGivesWhatWasPushedLastAndCountsTheGet) {
  fill(3, 41);
  EXPECT_EQ(run_pop(users()), object(2));
  expect_word(2, 42);
  EXPECT_EQ(pop(front_), object(1));
  expect_word(1, 43);
  EXPECT_TRUE(run_push(users(), object(1)));
  expect_word(2, 43);
  EXPECT_TRUE(push(front_, object(2)));
  expect_word(3, 43);
  expect_objects(0, 3);
  expect_untouched(3);
}

TEST_F(CpuArrayTest, AnEmptyArrayGivesNothingAndIsNotWritten) {
  fill(0, 7);
  void* given = guard_word;
  EXPECT_EQ(run_pop(users()), nullptr);
  EXPECT_EQ(pop(front_), nullptr);
  EXPECT_EQ(pop_many(front_, &given, 1, cpu_array::get_step), 0U);
  EXPECT_EQ(given, guard_word);
  expect_word(0, 7);
}

TEST_F(CpuArrayTest, AFullArrayTakesNothingAndIsNotWritten) {
  void* more = object(9);
  // Full, and above a capacity that was lowered.
  for (const std::size_t capacity : {std::size_t{5}, std::size_t{3}, std::size_t{0}}) {
    fill(5, 7, capacity);
    EXPECT_FALSE(run_push(users(), more));
    EXPECT_FALSE(push(front_, more));
    EXPECT_EQ(push_many(front_, &more, 1), 0U);
    expect_word(5, 7);
    expect_objects(0, 5);
    expect_untouched(5);
    EXPECT_EQ(pop(front_), object(4)) << "a full array still gives";
  }
}

TEST_F(CpuArrayTest, TheClosedArrayGivesAndTakesNothing) {
  fill(5);
  front_.pop_table.store(closed_table());
  front_.push_table.store(closed_table());
  void* moved = object(9);
  EXPECT_EQ(run_pop(users()), nullptr);
  EXPECT_FALSE(run_push(users(), moved));
  EXPECT_EQ(pop_many(front_, &moved, 1, cpu_array::get_step), 0U);
  EXPECT_EQ(push_many(front_, &moved, 1), 0U);
  EXPECT_EQ(closed_array()->word.load(), 0U);
  expect_word(5, 0);
}

// The count of gets fills its 48 bits and begins again, without a trace in the length.
TEST_F(CpuArrayTest, TheCountOfGetsWrapsAround) {
  constexpr std::uint64_t last = (std::uint64_t{1} << 48) - 1;
  fill(3, last);
  EXPECT_EQ(run_pop(users()), object(2));
  expect_word(2, 0);
  fill(3, last);
  std::array<void*, 2> objects{};
  EXPECT_EQ(pop_many(front_, objects.data(), 2, cpu_array::get_step), 2U);
  expect_word(1, 1);
}

TEST_F(CpuArrayTest, BatchesOfEveryLengthMoveWholeAndInOrder) {
  std::array<void*, entries> objects;
  for (std::size_t count = 1; count <= 244; ++count) {
    for (const std::uint64_t step : {cpu_array::get_step, cpu_array::move_step}) {
      fill(250, 100);
      objects.fill(guard_word);
      ASSERT_EQ(pop_many(front_, objects.data(), count, step), count);
      expect_word(250 - count, step == cpu_array::get_step ? 100 + count : 100);
      for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(objects[i], object(250 - count + i));
      ASSERT_EQ(objects[count], guard_word) << "written behind the batch";
      ASSERT_EQ(push_many(front_, objects.data(), count), count);
      expect_word(250, step == cpu_array::get_step ? 100 + count : 100);
      expect_objects(0, 250);
      expect_untouched(250);
    }
  }
}

TEST_F(CpuArrayTest, BatchesEndWhereTheArrayDoes) {
  std::array<void*, entries> objects;
  objects.fill(guard_word);
  fill(5, 1);
  EXPECT_EQ(pop_many(front_, objects.data(), 100, cpu_array::get_step), 5U);
  expect_word(0, 6);
  EXPECT_EQ(objects[4], object(4));
  EXPECT_EQ(objects[5], guard_word);
  for (std::size_t i = 0; i < entries; ++i) objects[i] = object(i);
  fill(0, 6, 20);
  EXPECT_EQ(push_many(front_, objects.data(), 100), 20U);
  expect_word(20, 6);
  expect_objects(0, 20);
  expect_untouched(20);
  EXPECT_EQ(push_many(front_, objects.data(), 0), 0U);
  EXPECT_EQ(pop_many(front_, objects.data(), 0, cpu_array::get_step), 0U);
  expect_word(20, 6);
}

#if defined(__x86_64__)

// These sequences begin afresh within: after the abort the call goes on to its end, and the state is as if nothing had
// happened.

// KF-17
TEST_F(CpuArrayTest, AnAbortAtAnyInstructionOfAPopIsMadeGood) {
  void* popped = nullptr;
  abort_test::abort_at_each_instruction([&] { fill(10, 100); }, [&] { popped = run_pop(users()); },
                                        [&](std::ptrdiff_t offset) {
                                          SCOPED_TRACE(testing::Message() << "at +" << offset);
                                          EXPECT_EQ(popped, object(9));
                                          expect_word(9, 101);
                                          expect_objects(0, 10);
                                          expect_untouched(10);
                                        });
}

TEST_F(CpuArrayTest, AnAbortAtAnyInstructionOfAPushIsMadeGood) {
  bool pushed = false;
  abort_test::abort_at_each_instruction([&] { fill(10, 100); }, [&] { pushed = run_push(users(), object(10)); },
                                        [&](std::ptrdiff_t offset) {
                                          SCOPED_TRACE(testing::Message() << "at +" << offset);
                                          EXPECT_TRUE(pushed);
                                          expect_word(11, 100);
                                          expect_objects(0, 11);
                                          expect_untouched(11);
                                        });
}

TEST_F(CpuArrayTest, AnAbortAtAnyInstructionOfABatchIsMadeGood) {
  std::array<void*, 8> objects{};
  std::size_t moved = 0;
  abort_test::abort_at_each_instruction(
      [&] {
        fill(10, 100);
        objects.fill(guard_word);
      },
      [&] { moved = pop_many(front_, objects.data(), 7, cpu_array::get_step); },
      [&](std::ptrdiff_t offset) {
        SCOPED_TRACE(testing::Message() << "at +" << offset);
        EXPECT_EQ(moved, 7U);
        expect_word(3, 107);
        for (std::size_t i = 0; i < 7; ++i) EXPECT_EQ(objects[i], object(3 + i));
        EXPECT_EQ(objects[7], guard_word);
      });
  for (std::size_t i = 0; i < objects.size(); ++i) objects[i] = object(10 + i);
  abort_test::abort_at_each_instruction([&] { fill(10, 100); },
                                        [&] { moved = push_many(front_, objects.data(), objects.size()); },
                                        [&](std::ptrdiff_t offset) {
                                          SCOPED_TRACE(testing::Message() << "at +" << offset);
                                          EXPECT_EQ(moved, objects.size());
                                          expect_word(18, 100);
                                          expect_objects(0, 18);
                                          expect_untouched(18);
                                        });
}

// Two pages, the second of which is not there until somebody has come upon it.
unsigned char* pages = nullptr;
int faults = 0;
std::uintptr_t resumed_at = 0;

void let_in(int, siginfo_t*, void* raw) {
  ++faults;
  resumed_at = static_cast<std::uintptr_t>(static_cast<ucontext_t*>(raw)->uc_mcontext.gregs[REG_RIP]);
  ::mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE);
}

// In the middle of the copy, which is one instruction.
TEST_F(CpuArrayTest, AnAbortWithinTheCopyOfABatchIsMadeGood) {
  pages = static_cast<unsigned char*>(
      ::mmap(nullptr, std::size_t{2} * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  void** across = reinterpret_cast<void**>(pages + 4096) - 50;
  {
    const abort_test::handled_signal trap(SIGSEGV, let_in);
    fill(200, 100);
    faults = 0;
    ASSERT_EQ(::mprotect(pages + 4096, 4096, PROT_NONE), 0);
    EXPECT_EQ(pop_many(front_, across, 150, cpu_array::get_step), 150U);
    EXPECT_EQ(faults, 1);
    expect_word(50, 250);
    for (std::size_t i = 0; i < 150; ++i) EXPECT_EQ(across[i], object(50 + i));
    const std::uintptr_t aborted_to = resumed_at;

    fill(50, 250);
    ASSERT_EQ(::mprotect(pages + 4096, 4096, PROT_NONE), 0);
    EXPECT_EQ(push_many(front_, across, 150), 150U);
    EXPECT_EQ(faults, 2);
    EXPECT_NE(resumed_at, aborted_to);
    expect_word(200, 250);
    expect_objects(0, 200);
    expect_untouched(200);
  }
  ::munmap(pages, std::size_t{2} * 4096);
}

// A thread that the C library could not register finds no array, in none of the four.
TEST_F(CpuArrayTest, AThreadThatIsNotRegisteredIsRefused) {
  fill(5);
  std::thread([&] {
    abort_test::unregister();
    void* moved = object(9);
    EXPECT_EQ(run_pop(users()), nullptr);
    EXPECT_FALSE(run_push(users(), moved));
    EXPECT_EQ(pop_many(front_, &moved, 1, cpu_array::get_step), 0U);
    EXPECT_EQ(push_many(front_, &moved, 1), 0U);
  }).join();
  expect_word(5, 0);
}

#endif

}  // namespace
}  // namespace larder::os

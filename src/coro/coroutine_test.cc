// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <larder/coroutine.h>

namespace larder {
namespace {

// Writes to a vector of its test when it is destroyed.
struct notes_its_end {
  std::vector<std::string>* notes;
  std::string text;
  notes_its_end(std::vector<std::string>& log, std::string what) : notes(&log), text(std::move(what)) {}
  notes_its_end(notes_its_end&& other) noexcept : notes(std::exchange(other.notes, nullptr)), text(other.text) {}
  ~notes_its_end() {
    if (notes != nullptr) notes->push_back(text);
  }
};

TEST(CoroutineTest, RunsFromYieldToYieldUntilItIsDone) {
  std::vector<int> steps;
  coroutine counting([&] {
    for (int i = 0; i < 3; ++i) {
      steps.push_back(i);
      coroutine::yield();
    }
  });
  EXPECT_TRUE(steps.empty()) << "nothing runs before the first resume";
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(counting.done());
    counting.resume();
    EXPECT_EQ(steps.size(), static_cast<std::size_t>(i + 1));
  }
  counting.resume();
  EXPECT_TRUE(counting.done());
  EXPECT_EQ(steps, (std::vector<int>{0, 1, 2}));
}

TEST(CoroutineTest, ValuesPassBothWays) {
  int in[3] = {1, 2, 3};
  int out[2] = {10, 20};
  std::vector<void*> seen;
  coroutine passing([&](void* first) {
    seen.push_back(first);
    for (int& each : out) seen.push_back(coroutine::yield(&each));
  });
  EXPECT_EQ(passing.resume(&in[0]), &out[0]);
  EXPECT_EQ(passing.resume(&in[1]), &out[1]);
  EXPECT_EQ(passing.resume(&in[2]), nullptr) << "nothing comes from an end";
  EXPECT_TRUE(passing.done());
  EXPECT_EQ(seen, (std::vector<void*>{&in[0], &in[1], &in[2]}));
}

// What a caller holds in registers of any kind is its own again after a switch: here the x87's, a vector's, and more
// numbers than there are registers that a callee must keep.
TEST(CoroutineTest, EachSideKeepsItsRegisters) {
  coroutine other([] {
    long double x = 3.0L;
    double y[16];
    for (double& each : y) each = 3.0;
    for (;;) {
      x = x * 0.5L + 1.0L;
      for (double& each : y) each += 1.0;
      coroutine::yield();
      asm volatile("" : "+t"(x));
      asm volatile("" : : "m"(y));
    }
  });
  long double x = 1.0L;
  std::uint64_t numbers[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  for (int i = 0; i < 20; ++i) {
    x = x * 2.0L + 1.0L;
    for (std::uint64_t& each : numbers) each *= 3;
    other.resume();
  }
  EXPECT_EQ(x, 2'097'151.0L);
  std::uint64_t power = 1;
  for (int i = 0; i < 20; ++i) power *= 3;
  for (std::uint64_t i = 0; i < 12; ++i) EXPECT_EQ(numbers[i], (i + 1) * power);
}

TEST(CoroutineTest, ResumeAndYieldWithoutValuesPassNull) {
  void* seen = &seen;
  coroutine plain([&] { seen = coroutine::yield(); });
  EXPECT_EQ(plain.resume(), nullptr);
  EXPECT_EQ(plain.resume(), nullptr);
  EXPECT_EQ(seen, nullptr);
}

TEST(CoroutineTest, CancelUnwindsAndThenItIsDone) {
  std::vector<std::string> notes;
  coroutine waiting([&] {
    const notes_its_end local(notes, "unwound");
    coroutine::yield();
    notes.emplace_back("never");
  });
  waiting.resume();
  waiting.cancel();
  EXPECT_TRUE(waiting.done());
  EXPECT_EQ(notes, std::vector<std::string>{"unwound"});
  waiting.cancel();  // again changes nothing
  EXPECT_TRUE(waiting.done());
}

TEST(CoroutineTest, CancelBeforeTheFirstResumeDestroysTheClosure) {
  std::vector<std::string> notes;
  coroutine fresh([&, held = notes_its_end(notes, "closure")] { notes.emplace_back("never"); });
  fresh.cancel();
  EXPECT_TRUE(fresh.done());
  EXPECT_EQ(notes, std::vector<std::string>{"closure"});
}

TEST(CoroutineTest, WhatIsThrownDuringCancelGoesNowhere) {
  coroutine stubborn([] {
    try {
      coroutine::yield();
    } catch (...) {
      throw std::runtime_error("instead");
    }
  });
  stubborn.resume();
  EXPECT_NO_THROW(stubborn.cancel());
  EXPECT_TRUE(stubborn.done());
}

TEST(CoroutineTest, InsideIsTrueInItsBodyOnly) {
  bool inside = false;
  coroutine asks([&] { inside = coroutine::inside(); });
  EXPECT_FALSE(coroutine::inside());
  asks.resume();
  EXPECT_TRUE(inside);
  EXPECT_FALSE(coroutine::inside());
}

TEST(CoroutineTest, YieldGoesToTheInnermostResumer) {
  std::string steps;
  coroutine outer([&] {
    coroutine inner([&] {
      steps += "b";
      coroutine::yield();
      steps += "d";
    });
    steps += "a";
    inner.resume();
    steps += "c";
    inner.resume();
    EXPECT_TRUE(inner.done());
    coroutine::yield();
    steps += "f";
  });
  outer.resume();
  steps += "e";
  outer.resume();
  EXPECT_EQ(steps, "abcdef");
}

TEST(CoroutineTest, DestructionUnwindsTheStackThroughTheYield) {
  std::vector<std::string> ended;
  {
    coroutine waiting([&, part = notes_its_end(ended, "closure")] {
      const notes_its_end first(ended, "first");
      const notes_its_end second(ended, "second");
      coroutine::yield();
      ADD_FAILURE() << "went on after its yield";
    });
    waiting.resume();
    EXPECT_TRUE(ended.empty());
  }
  EXPECT_EQ(ended, (std::vector<std::string>{"second", "first", "closure"}));
}

TEST(CoroutineTest, CancellationReachesEachYieldUntilTheBodyEnds) {
  int cancelled = 0;
  {
    coroutine stubborn([&] {
      for (int i = 0; i < 3; ++i) {
        try {
          coroutine::yield();
        } catch (const coroutine::cancelled&) {
          ++cancelled;
        }
      }
    });
    stubborn.resume();
  }
  EXPECT_EQ(cancelled, 3);
}

TEST(CoroutineTest, CancellationIsNoStandardException) {
  bool as_standard = false;
  bool as_any = false;
  {
    coroutine waiting([&] {
      try {
        try {
          coroutine::yield();
        } catch (const std::exception&) {
          as_standard = true;
        }
      } catch (...) {
        as_any = true;
        throw;
      }
    });
    waiting.resume();
  }
  EXPECT_FALSE(as_standard);
  EXPECT_TRUE(as_any);
}

TEST(CoroutineTest, ExceptionDuringCancellationGoesNowhere) {
  std::vector<std::string> ended;
  {
    coroutine waiting([&] {
      const notes_its_end guard(ended, "guard");
      try {
        coroutine::yield();
      } catch (const coroutine::cancelled&) {
        throw std::runtime_error("instead");
      }
    });
    waiting.resume();
  }
  EXPECT_EQ(ended, std::vector<std::string>{"guard"});
}

TEST(CoroutineTest, YieldInADestructorGoesOnDuringCancellation) {
  std::string steps;
  {
    coroutine waiting([&] {
      struct says_goodbye {
        std::string* steps;
        ~says_goodbye() {
          *steps += "a";
          coroutine::yield();
          *steps += "b";
        }
      };
      const says_goodbye guard{&steps};
      coroutine::yield();
      steps += "never";
    });
    waiting.resume();
  }
  EXPECT_EQ(steps, "ab");
}

TEST(CoroutineTest, IsNeitherCopiedNorMadeFromWhatCannotBeCalled) {
  static_assert(!std::is_constructible_v<coroutine, coroutine&>);
  static_assert(!std::is_constructible_v<coroutine, const coroutine&>);
  static_assert(!std::is_constructible_v<coroutine, int>);
  static_assert(std::is_nothrow_move_constructible_v<coroutine>);
}

TEST(CoroutineTest, CancelledWhileItsOwnerUnwinds) {
  std::vector<std::string> ended;
  EXPECT_THROW(
      {
        coroutine waiting([&] {
          const notes_its_end guard(ended, "guard");
          coroutine::yield();
        });
        waiting.resume();
        throw std::runtime_error("owner");
      },
      std::runtime_error);
  EXPECT_EQ(ended, std::vector<std::string>{"guard"});
}

TEST(CoroutineTest, DestroyedBeforeItsFirstResumeOnlyDestroysItsClosure) {
  std::vector<std::string> ended;
  bool ran = false;
  {
    const coroutine never([&ran, part = notes_its_end(ended, "closure")] { ran = true; });
  }
  EXPECT_FALSE(ran);
  EXPECT_EQ(ended, std::vector<std::string>{"closure"});
}

TEST(CoroutineTest, ClosureIsDestroyedAtTheEndOfTheBody) {
  auto shared = std::make_shared<int>(1);
  coroutine holder([shared] { coroutine::yield(); });
  EXPECT_EQ(shared.use_count(), 2);
  holder.resume();
  EXPECT_EQ(shared.use_count(), 2);
  holder.resume();
  EXPECT_EQ(shared.use_count(), 1) << "not only when the coroutine is destroyed";
}

struct throws_when_moved {
  throws_when_moved() = default;
  throws_when_moved(const throws_when_moved&) { throw std::runtime_error("copy"); }
  void operator()() const {}
};

TEST(CoroutineTest, ClosureThatCannotBeMovedInCostsNoStack) {
  coroutine warm([] {});
  warm.resume();
  const bytes before = memory_budget::process().used();
  const throws_when_moved body;
  for (int i = 0; i < 1000; ++i) EXPECT_THROW(coroutine{body}, std::runtime_error);
  EXPECT_LE(memory_budget::process().used() - before, 256_KiB);
}

TEST(CoroutineTest, ExceptionComesOutOfResumeAndThenItIsDone) {
  coroutine throwing([] {
    coroutine::yield();
    throw std::runtime_error("from inside");
  });
  throwing.resume();
  try {
    throwing.resume();
    ADD_FAILURE() << "nothing came out";
  } catch (const std::runtime_error& thrown) {
    EXPECT_STREQ(thrown.what(), "from inside");
  }
  EXPECT_TRUE(throwing.done());
  EXPECT_FALSE(coroutine::inside());
}

TEST(CoroutineTest, ExceptionCrossesNestedResumes) {
  coroutine outer([] {
    coroutine inner([] { throw std::out_of_range("deep"); });
    inner.resume();
  });
  EXPECT_THROW(outer.resume(), std::out_of_range);
}

TEST(CoroutineTest, ExceptionCaughtInsideStaysInside) {
  std::string caught;
  coroutine careful([&] {
    try {
      throw std::runtime_error("inside");
    } catch (const std::exception& error) {
      coroutine::yield();
      caught = error.what();
      EXPECT_NE(std::current_exception(), nullptr);
    }
  });
  careful.resume();
  EXPECT_EQ(std::current_exception(), nullptr);
  careful.resume();
  EXPECT_EQ(caught, "inside");
}

TEST(CoroutineTest, MoveTakesTheCoroutineAlong) {
  int steps = 0;
  coroutine first([&] {
    ++steps;
    coroutine::yield();
    ++steps;
  });
  first.resume();
  coroutine second(std::move(first));
  EXPECT_TRUE(first.done());  // NOLINT(bugprone-use-after-move): what a moved-from coroutine says is specified
  EXPECT_STREQ(first.name(), "");
  second.resume();
  EXPECT_TRUE(second.done());
  EXPECT_EQ(steps, 2);
}

TEST(CoroutineTest, MoveAssignmentEndsTheCoroutineThatWasThere) {
  std::vector<std::string> ended;
  coroutine target([&] {
    const notes_its_end guard(ended, "old");
    coroutine::yield();
  });
  target.resume();
  int runs = 0;
  target = coroutine([&] { ++runs; });
  EXPECT_EQ(ended, std::vector<std::string>{"old"});
  target.resume();
  EXPECT_EQ(runs, 1);
}

TEST(CoroutineTest, ClosuresOfAnyAlignmentAreAligned) {
  struct alignas(256) wide {
    std::array<char, 512> content{};
  };
  bool aligned = false;
  wide capture;
  capture.content[511] = 'x';
  coroutine body([&aligned, capture] {
    aligned = reinterpret_cast<std::uintptr_t>(&capture) % 256 == 0 && capture.content[511] == 'x';
  });
  body.resume();
  EXPECT_TRUE(aligned);
}

TEST(CoroutineTest, LargestClosureFits) {
  std::array<char, coroutine::closure_size_max - sizeof(void*)> capture{};
  capture.front() = 'a';
  capture.back() = 'z';
  std::string seen;
  coroutine body([&seen, capture] { seen = {capture.front(), capture.back()}; });
  body.resume();
  EXPECT_EQ(seen, "az");
}

TEST(CoroutineTest, TakesFunctionsAndMoveOnlyCallables) {
  static int called;
  called = 0;
  coroutine plain(+[] { ++called; });
  plain.resume();
  coroutine owning([owned = std::make_unique<int>(5)] { called += *owned; });
  owning.resume();
  std::function<void()> stored = [] { called += 10; };
  coroutine copying(stored);
  copying.resume();
  EXPECT_EQ(called, 16);
}

TEST(CoroutineTest, KeepsItsName) {
  const coroutine unnamed([] {});
  const coroutine named([] {}, {.name = "reader"});
  EXPECT_STREQ(unnamed.name(), "coroutine");
  EXPECT_STREQ(named.name(), "reader");
}

TEST(CoroutineTest, StackLargerThanTheLargestIsRefused) {
  EXPECT_THROW(coroutine([] {}, {.stack_size = coroutine::stack_size_max + 1_B}), std::invalid_argument);
  coroutine largest([] {}, {.stack_size = coroutine::stack_size_max});
  largest.resume();
  EXPECT_TRUE(largest.done());
}

// KF-34: no address of a thread-local survives a switch to another thread.
thread_local int this_thread_is = 0;
[[gnu::noinline]] int& which_thread() { return this_thread_is; }

TEST(CoroutineTest, SeesTheThreadLocalsOfTheThreadThatResumesIt) {
  std::vector<int> seen;
  coroutine travelling([&] {
    for (;;) {
      seen.push_back(which_thread());
      EXPECT_TRUE(coroutine::inside());
      coroutine::yield();
    }
  });
  for (int number = 1; number <= 5; ++number) {
    std::thread([&] {
      which_thread() = number;
      travelling.resume();
      EXPECT_FALSE(coroutine::inside()) << "on the thread that it left";
      travelling.resume();
    }).join();
  }
  EXPECT_EQ(seen, (std::vector<int>{1, 1, 2, 2, 3, 3, 4, 4, 5, 5}));
  EXPECT_FALSE(coroutine::inside());
}

// KF-34: a nested coroutine's chain of resumers is rebuilt on each thread.
TEST(CoroutineTest, NestedCoroutinesTravelTogether) {
  std::vector<int> seen;
  coroutine outer([&] {
    coroutine inner([&] {
      for (;;) {
        seen.push_back(which_thread());
        coroutine::yield();
      }
    });
    for (;;) {
      inner.resume();
      coroutine::yield();
    }
  });
  for (int number = 1; number <= 3; ++number) {
    std::thread([&] {
      which_thread() = number;
      outer.resume();
    }).join();
  }
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3}));
}

TEST(CoroutineTest, CancelledOnAnotherThreadThanItRan) {
  std::vector<std::string> ended;
  auto waiting = std::make_unique<coroutine>([&] {
    const notes_its_end guard(ended, "guard");
    coroutine::yield();
  });
  waiting->resume();
  std::thread([&] { waiting.reset(); }).join();
  EXPECT_EQ(ended, std::vector<std::string>{"guard"});
}

class CoroutineDeathTest : public testing::Test {
 protected:
  CoroutineDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(CoroutineDeathTest, ResumeAfterTheEndDiesWithItsName) {
  coroutine ended([] {}, {.name = "short-lived"});
  ended.resume();
  EXPECT_DEATH(ended.resume(), "coroutine \"short-lived\" is resumed after it has finished");
}

TEST_F(CoroutineDeathTest, ResumeAfterAnExceptionDies) {
  coroutine throwing([] { throw 1; });
  EXPECT_THROW(throwing.resume(), int);
  EXPECT_DEATH(throwing.resume(), "after it has finished");
}

TEST_F(CoroutineDeathTest, ResumeOfItselfDiesWithItsName) {
  coroutine* self = nullptr;
  coroutine recursive([&] { self->resume(); }, {.name = "recursive"});
  self = &recursive;
  EXPECT_DEATH(recursive.resume(), "coroutine \"recursive\" is resumed while it runs");
}

TEST_F(CoroutineDeathTest, DestructionOfItselfDiesWithItsName) {
  std::unique_ptr<coroutine> self;
  self = std::make_unique<coroutine>([&] { self.reset(); }, coroutine::options{.name = "suicidal"});
  EXPECT_DEATH(self->resume(), "coroutine \"suicidal\" is destroyed while it runs");
}

TEST_F(CoroutineDeathTest, CancelOfItselfDiesWithItsName) {
  EXPECT_DEATH(
      {
        coroutine* self = nullptr;
        coroutine selfish([&] { self->cancel(); }, {.name = "selfish"});
        self = &selfish;
        selfish.resume();
      },
      "coroutine \"selfish\" is cancelled while it runs");
}

TEST_F(CoroutineDeathTest, ResumeOfAMovedFromCoroutineDies) {
  coroutine first([] {});
  const coroutine second(std::move(first));
  EXPECT_DEATH(first.resume(), "moved from");  // NOLINT(bugprone-use-after-move)
}

TEST_F(CoroutineDeathTest, YieldOutsideOfACoroutineDies) {
  EXPECT_DEATH(coroutine::yield(), "yield outside of a coroutine");
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
#include "coro/fiber.h"

#include <execinfo.h>
#include <sys/wait.h>

#include <algorithm>
#include <cfenv>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "coro/stack_cache.h"
#include "tests/support/kept_registers.h"

namespace larder::coro {
namespace {

// A fiber that runs a function object, on a stack of its own.
class test_fiber {
 public:
  explicit test_fiber(std::function<void()> body, bytes stack_size = 64_KiB)
      : body_(std::move(body)),
        stacks_(*stack_cache<fiber>::create("test fibers", {.stack_size = stack_size})),
        fiber_(stacks_->try_get()) {
    fiber_->start([](void* self) { static_cast<test_fiber*>(self)->body_(); }, this,
                  reinterpret_cast<std::byte*>(fiber_));
  }
  ~test_fiber() { stacks_->put(fiber_); }
  test_fiber(const test_fiber&) = delete;
  test_fiber& operator=(const test_fiber&) = delete;

  fiber* operator->() { return fiber_; }
  fiber& operator*() { return *fiber_; }

 private:
  std::function<void()> body_;
  std::unique_ptr<stack_cache<fiber>> stacks_;
  fiber* fiber_;
};

void resume(void* who) { static_cast<fiber*>(who)->resume(); }
void suspend(void* who) { static_cast<fiber*>(who)->suspend(); }

TEST(ContextTest, SwitchKeepsTheRegistersThatACalleeMustKeep) {
  fiber* self = nullptr;
  std::uint64_t changed_inside = 0;
  test_fiber other([&] {
    for (int i = 0; i < 3; ++i) changed_inside += tests::registers_changed_by(suspend, self, 0x1111'0000'0000'1000);
  });
  self = &*other;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(tests::registers_changed_by(resume, self, 0x2222'0000'0000'2000), 0U);
  EXPECT_EQ(changed_inside, 0U);
  EXPECT_TRUE(other->finished());
}

TEST(ContextTest, SwitchKeepsTheFloatingPointControlWordsOfEachSide) {
  std::vector<int> seen_inside;
  fiber* self = nullptr;
  test_fiber other([&] {
    seen_inside.push_back(std::fegetround());
    std::fesetround(FE_UPWARD);  // on x86-64, both mxcsr and the x87 control word
    self->suspend();
    seen_inside.push_back(std::fegetround());
    volatile double one = 1.0;
    volatile double three = 3.0;
    volatile double third = one / three;  // by mxcsr there
    seen_inside.push_back(third > 1.0 / 3.0 ? 1 : 0);
    volatile long double long_three = 3.0L;
    volatile long double long_third = 1.0L / long_three;  // by the x87 control word there
    seen_inside.push_back(long_third * 3.0L > 1.0L ? 1 : 0);
    std::fesetround(FE_TOWARDZERO);
  });
  self = &*other;
  const int before = std::fegetround();
  other->resume();
  EXPECT_EQ(std::fegetround(), before);
  std::fesetround(FE_DOWNWARD);
  other->resume();
  EXPECT_EQ(std::fegetround(), FE_DOWNWARD);
  std::fesetround(before);
  EXPECT_EQ(seen_inside, (std::vector<int>{before, FE_UPWARD, 1, 1}));
}

TEST(ContextTest, NewContextInheritsTheControlWordsOfItsCreator) {
  const int before = std::fegetround();
  int seen = -1;
  std::fesetround(FE_DOWNWARD);
  test_fiber other([&] { seen = std::fegetround(); });
  std::fesetround(before);
  other->resume();
  EXPECT_EQ(seen, FE_DOWNWARD);
}

TEST(ContextTest, NewContextStartsWithAnAlignedStack) {
  bool aligned = false;
  test_fiber other([&] {
    alignas(16) volatile char probe[16] = {};
    aligned = reinterpret_cast<std::uintptr_t>(&probe[0]) % 16 == 0;
  });
  other->resume();
  EXPECT_TRUE(aligned);
}

TEST(FiberTest, RunsUntilItSuspendsAndEndsOnce) {
  std::vector<int> steps;
  fiber* self = nullptr;
  test_fiber other([&] {
    steps.push_back(1);
    EXPECT_TRUE(self->running());
    self->suspend();
    steps.push_back(3);
  });
  self = &*other;
  EXPECT_FALSE(other->finished());
  other->resume();
  EXPECT_FALSE(other->running());
  EXPECT_FALSE(other->finished());
  steps.push_back(2);
  other->resume();
  EXPECT_TRUE(other->finished());
  EXPECT_EQ(steps, (std::vector<int>{1, 2, 3}));
}

TEST(FiberTest, StartsAgainAfterItsEndAndAfterAnAbandonedStart) {
  int runs = 0;
  auto stacks = *stack_cache<fiber>::create("test fibers", {.stack_size = 16_KiB});
  fiber* reused = stacks->try_get();
  const auto count = [](void* sum) { ++*static_cast<int*>(sum); };
  for (int i = 0; i < 1000; ++i) {
    reused->start(count, &runs, reinterpret_cast<std::byte*>(reused));
    if (i % 3 == 0) {
      reused->abandon();
    } else {
      reused->resume();
    }
    EXPECT_TRUE(reused->finished());
  }
  EXPECT_EQ(runs, 666);
  stacks->put(reused);
}

// A fiber that suspends itself while it is on the stack of one that it resumed, as a task does that parks in a
// coroutine: its next resume goes on there.
TEST(FiberTest, SuspendsFromTheStackOfANestedFiber) {
  std::vector<int> steps;
  fiber* outer_self = nullptr;
  test_fiber inner([&] {
    steps.push_back(1);
    outer_self->suspend();
    steps.push_back(3);
    try {
      throw std::runtime_error("unwinds on the inner stack");
    } catch (const std::runtime_error&) {
      outer_self->suspend();
    }
    steps.push_back(5);
  });
  test_fiber outer([&] {
    inner->resume();
    steps.push_back(6);
  });
  outer_self = &*outer;
  outer->resume();
  EXPECT_TRUE(inner->running()) << "the outer fiber is suspended, the inner one is not";
  steps.push_back(2);
  outer->resume();
  steps.push_back(4);
  outer->resume();
  EXPECT_EQ(steps, (std::vector<int>{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(inner->finished());
  EXPECT_TRUE(outer->finished());
}

// KF-34: the outer of two is suspended from within the inner one, and both wake up on another thread, inside catch
// blocks.
TEST(FiberTest, ANestWakesUpOnAnotherThread) {
  fiber* outer_self = nullptr;
  fiber* inner_self = nullptr;
  std::vector<std::string> caught;
  test_fiber inner([&] {
    try {
      throw std::runtime_error("inner");
    } catch (const std::exception&) {
      outer_self->suspend();
      caught.emplace_back(detail::this_thread().innermost == inner_self ? "in inner" : "lost");
      try {
        throw;
      } catch (const std::exception& same) {
        caught.emplace_back(same.what());
      }
    }
  });
  test_fiber outer([&] {
    try {
      throw std::runtime_error("outer");
    } catch (const std::exception&) {
      inner->resume();
      caught.emplace_back(detail::this_thread().innermost == outer_self ? "in outer" : "lost");
      try {
        throw;
      } catch (const std::exception& same) {
        caught.emplace_back(same.what());
      }
    }
  });
  outer_self = &*outer;
  inner_self = &*inner;
  outer->resume();
  EXPECT_EQ(detail::this_thread().innermost, nullptr);
  EXPECT_EQ(std::current_exception(), nullptr);
  std::thread([&] {
    outer->resume();
    EXPECT_EQ(detail::this_thread().innermost, nullptr);
    EXPECT_EQ(std::current_exception(), nullptr);
  }).join();
  EXPECT_TRUE(outer->finished() && inner->finished());
  EXPECT_EQ(caught, (std::vector<std::string>{"in inner", "inner", "in outer", "outer"}));
}

// It was suspended from within another once, and later suspends itself, after the other has ended.
TEST(FiberTest, ANestThatIsOverIsForgotten) {
  fiber* outer_self = nullptr;
  test_fiber inner([&] { outer_self->suspend(); });
  const detail::fiber_core* seen = nullptr;
  test_fiber outer([&] {
    inner->resume();
    outer_self->suspend();
    seen = detail::this_thread().innermost;
  });
  outer_self = &*outer;
  for (int i = 0; i < 3; ++i) outer->resume();
  EXPECT_TRUE(outer->finished() && inner->finished());
  EXPECT_EQ(seen, outer_self);
}

TEST(FiberTest, ExceptionsInFlightBelongToTheFiber) {
  fiber* self = nullptr;
  std::string caught_inside;
  int uncaught_inside = -1;
  test_fiber other([&] {
    try {
      throw std::runtime_error("inner");
    } catch (const std::runtime_error&) {
      self->suspend();  // the resumer handles one of its own meanwhile
      try {
        std::rethrow_exception(std::current_exception());
      } catch (const std::exception& again) {
        caught_inside = again.what();
      }
      uncaught_inside = std::uncaught_exceptions();
    }
  });
  self = &*other;
  other->resume();
  EXPECT_EQ(std::current_exception(), nullptr) << "the fiber's exception stays with it";
  try {
    throw std::logic_error("outer");
  } catch (const std::logic_error&) {
    other->resume();
    try {
      throw;
    } catch (const std::exception& mine) {
      EXPECT_STREQ(mine.what(), "outer");
    }
  }
  EXPECT_EQ(caught_inside, "inner");
  EXPECT_EQ(uncaught_inside, 0);
  EXPECT_EQ(std::current_exception(), nullptr);
}

TEST(FiberTest, ResumedWhileItsResumerUnwindsItSeesNoUncaughtException) {
  int seen = -1;
  test_fiber other([&] { seen = std::uncaught_exceptions(); });
  struct resumes_on_the_way_out {
    fiber& resumed;
    int own = -1;
    ~resumes_on_the_way_out() {
      resumed.resume();
      own = std::uncaught_exceptions();
      EXPECT_EQ(own, 1);
    }
  };
  EXPECT_THROW(
      {
        const resumes_on_the_way_out guard{*other};
        throw std::runtime_error("unwinding");
      },
      std::runtime_error);
  EXPECT_EQ(seen, 0);
}

// What a walk up the stack found, at the start and after a switch.
struct walks {
  fiber* self = nullptr;
  std::vector<void*> first;
  std::vector<void*> second;

  static void walk(std::vector<void*>& into) {
    into.resize(64);
    into.resize(static_cast<std::size_t>(::backtrace(into.data(), static_cast<int>(into.size()))));
  }
};

TEST(FiberTest, BacktraceInsideEndsAtTheEntry) {
  auto stacks = *stack_cache<fiber>::create("test fibers", {.stack_size = 64_KiB});
  walks found;
  found.self = stacks->try_get();
  // Above the stack lies what looks like a caller: the walk must not take it for one.
  auto* const misleading = reinterpret_cast<void*>(&::backtrace);
  constexpr std::size_t words = 8;
  auto** above = reinterpret_cast<void**>(found.self) - words;
  std::fill_n(above, words, static_cast<void*>(static_cast<char*>(misleading) + 1));
  found.self->start(
      [](void* argument) {
        auto& mine = *static_cast<walks*>(argument);
        walks::walk(mine.first);
        mine.self->suspend();
        walks::walk(mine.second);
        asm volatile("");  // keeps this frame for the walk: without it the call would be a tail call
      },
      &found, reinterpret_cast<std::byte*>(above));
  found.self->resume();
  found.self->resume();
  EXPECT_GE(found.first.size(), 1U);
  EXPECT_LT(found.first.size(), 16U);
  EXPECT_EQ(found.second.size(), found.first.size());
  for (const void* frame : found.first) EXPECT_NE(frame, *above);
  stacks->put(found.self);
}

// Goes down the stack, frame by frame, until less than `left` is below; returns the number of frames.
[[gnu::noinline]] int descend(const std::byte* low, std::ptrdiff_t left) {
  volatile char room[64] = {};
  const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
  if (here - low < left) return 1;
  const int below = descend(low, left);
  room[0] = static_cast<char>(below);
  return below + 1 + room[1];
}

#if defined(LARDER_ADDRESS_SANITIZER)
constexpr std::ptrdiff_t left_for_callees = 16 << 10;  // what the sanitizer calls keeps stack traces in its frames
#else
constexpr std::ptrdiff_t left_for_callees = 2 << 10;
#endif

TEST(FiberTest, DeepRecursionNearTheGuardReturns) {
  int depth = 0;
  fiber* self = nullptr;
  test_fiber other([&] {
    depth = descend(self->stack_low(), left_for_callees);
    self->suspend();
    depth += descend(self->stack_low(), left_for_callees);
  });
  self = &*other;
  other->resume();
  const int first = depth;
  EXPECT_GT(first, 50);
  other->resume();
  EXPECT_EQ(depth, 2 * first);
}

// KF-41: overflow does not run into the neighbour.
TEST(FiberDeathTest, OverflowDiesAtTheGuard) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto killed_by_a_fault = [](int status) {
#if defined(LARDER_ADDRESS_SANITIZER) || defined(LARDER_THREAD_SANITIZER)
    return WIFEXITED(status) && WEXITSTATUS(status) != 0;  // the sanitizer reports the signal and exits
#else
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
#endif
  };
  const auto overflow = [] {
    test_fiber other([] { descend(nullptr, 0); });
    other->resume();
  };
  EXPECT_EXIT(overflow(), killed_by_a_fault, "");
}

TEST(FiberDeathTest, ResumeOfAFinishedFiberDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  test_fiber other([] {});
  other->resume();
  EXPECT_DEATH(other->resume(), "has finished");
}

// KF-34, and the C++ runtime's per-thread account of exceptions: a catch block that is left on another thread than it
// was entered on.
TEST(FiberTest, MovesBetweenThreadsInsideACatchBlock) {
  fiber* self = nullptr;
  std::vector<std::string> caught;
  test_fiber other([&] {
    for (int i = 0; i < 4; ++i) {
      try {
        throw std::runtime_error(std::to_string(i));
      } catch (const std::exception&) {
        self->suspend();
        try {
          throw;
        } catch (const std::exception& same) {
          caught.emplace_back(same.what());
        }
      }
    }
  });
  self = &*other;
  while (!other->finished()) std::thread([&] { other->resume(); }).join();
  EXPECT_EQ(caught, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_EQ(std::current_exception(), nullptr);
}

}  // namespace
}  // namespace larder::coro

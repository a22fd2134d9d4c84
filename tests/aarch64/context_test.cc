// SPDX-License-Identifier: Apache-2.0
//
// What a context switch promises, on the processor that this is compiled for. Needs no Google Test, so that it can be
// built for another processor (./run): prints what failed, and exits with 1 then.
#include "coro/context.h"

#include <unwind.h>

#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "tests/support/kept_registers.h"

extern "C" void larder_enter_context();

namespace {

using larder::coro::context;
using larder::coro::make_context;
using larder::coro::switch_context;
using larder::tests::registers_changed_by;

int failures = 0;

#define LARDER_EXPECT(condition)                                  \
  do {                                                            \
    if (!(condition)) {                                           \
      std::printf("failed: line %d: %s\n", __LINE__, #condition); \
      ++failures;                                                 \
    }                                                             \
  } while (false)

// A flow of control on a stack of its own, and who resumes it.
class flow {
 public:
  flow(void (*run)(flow&), void (*entry)(void*)) : run_(run) { own_ = make_context(top(), entry, this); }
  explicit flow(void (*run)(flow&)) : flow(run, begin) {}
  ~flow() { std::free(stack_); }
  flow(const flow&) = delete;
  flow& operator=(const flow&) = delete;

  std::uintptr_t resume(std::uintptr_t value = 0) {
    passed_ = value;
    switch_context(resumer_, own_);
    return passed_;
  }
  std::uintptr_t suspend(std::uintptr_t value = 0) {
    passed_ = value;
    switch_context(own_, resumer_);
    return passed_;
  }

  [[noreturn]] static void begin(void* self) {
    auto* mine = static_cast<flow*>(self);
    mine->run_(*mine);
    mine->suspend();
    std::puts("failed: a flow that had ended was resumed");
    std::_Exit(1);
  }

  std::byte* top() { return stack_ + stack_size; }

 private:
  static constexpr std::size_t stack_size = 256 * 1024 + 16;  // the top is a multiple of 16 and not of 32

  context own_;
  context resumer_;
  std::uintptr_t passed_ = 0;
  void (*run_)(flow&);
  std::byte* stack_ = static_cast<std::byte*>(std::aligned_alloc(16, stack_size));
};

void both_sides_alternate() {
  flow counter([](flow& self) {
    std::uintptr_t got = 0;
    for (;;) got = self.suspend(got + 1);
  });
  counter.resume();
  for (std::uintptr_t i = 0; i < 100'000; ++i) {
    if (counter.resume(i) == i + 1) continue;
    std::printf("failed: value %zu, or the answer to it, did not arrive\n", i);
    ++failures;
    return;
  }
}

// Where the entry finds its stack pointer, and what stands between that and the top.
#if LARDER_BOOST_CONTEXT && !defined(__x86_64__) && !defined(__aarch64__)
#define LARDER_TEST_NOTES_NO_STACK_POINTER 1
#elif defined(__x86_64__)
asm(R"(
        .text
        .globl  larder_test_note_stack_pointer
        .type   larder_test_note_stack_pointer, @function
larder_test_note_stack_pointer:
        movq    %rsp, larder_test_stack_pointer(%rip)
        jmp     larder_test_begin
        .size   larder_test_note_stack_pointer, . - larder_test_note_stack_pointer
)");
constexpr std::ptrdiff_t return_address_size = 8;
constexpr std::ptrdiff_t entry_size = 16;
#else
asm(R"(
        .text
        .globl  larder_test_note_stack_pointer
        .type   larder_test_note_stack_pointer, %function
larder_test_note_stack_pointer:
        mov     x1, sp
        adrp    x2, larder_test_stack_pointer
        str     x1, [x2, #:lo12:larder_test_stack_pointer]
        b       larder_test_begin
        .size   larder_test_note_stack_pointer, . - larder_test_note_stack_pointer
)");
constexpr std::ptrdiff_t return_address_size = 0;
constexpr std::ptrdiff_t entry_size = 0;
#endif

// Registers full of distinct values are switched away from, with others on the other side, and all of them come back.
bool held(void (*switch_away)(void*), void* with, std::uint64_t seed) {
  const std::uint64_t changed = registers_changed_by(switch_away, with, seed);
  if (changed == 0) return true;
  std::printf("failed: %llu registers changed over a switch\n", static_cast<unsigned long long>(changed));
  ++failures;
  return false;
}

void registers_are_kept() {
  flow other([](flow& self) {
    const auto suspend = [](void* who) { static_cast<flow*>(who)->suspend(); };
    for (std::uint64_t seed = 1'000'000; held(suspend, &self, seed); ++seed) continue;
  });
  const auto resume = [](void* who) { static_cast<flow*>(who)->resume(); };
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    if (!held(resume, &other, seed)) return;
  }
}

// Rounded as the control word says at this moment: volatile keeps the division here.
double third() {
  volatile double value = 1.0;
  value = value / 3.0;
  return value;
}

void control_word_belongs_to_context() {
  const double up_third = (std::fesetround(FE_UPWARD), third());
  const double down_third = (std::fesetround(FE_DOWNWARD), third());
  LARDER_EXPECT(up_third > down_third);
  static double expected = 0;
  expected = down_third;
  flow other([](flow& self) {  // begins with what its creator has
    LARDER_EXPECT(std::fegetround() == FE_DOWNWARD);
    LARDER_EXPECT(third() == expected);
    std::fesetround(FE_TOWARDZERO);
    for (;;) {
      self.suspend();
      LARDER_EXPECT(std::fegetround() == FE_TOWARDZERO);
      LARDER_EXPECT(third() == expected);
    }
  });
  std::fesetround(FE_UPWARD);
  for (int i = 0; i < 10; ++i) {
    other.resume();
    LARDER_EXPECT(std::fegetround() == FE_UPWARD);
    LARDER_EXPECT(third() == up_third);
  }
  std::fesetround(FE_TONEAREST);
  other.resume();
  LARDER_EXPECT(std::fegetround() == FE_TONEAREST);
}

#if !defined(LARDER_TEST_NOTES_NO_STACK_POINTER)
extern "C" {
[[gnu::used]] std::byte* larder_test_stack_pointer = nullptr;
[[noreturn, gnu::used]] void larder_test_begin(void* self) { flow::begin(self); }
void larder_test_note_stack_pointer(void* self);  // notes it where the function begins, and goes on there
}

void stack_is_aligned_at_entry() {
  flow other([](flow&) {}, larder_test_note_stack_pointer);
  other.resume();
  LARDER_EXPECT(LARDER_BOOST_CONTEXT != 0 ||
                larder_test_stack_pointer == other.top() - entry_size - return_address_size);
  LARDER_EXPECT((reinterpret_cast<std::uintptr_t>(larder_test_stack_pointer) + return_address_size) % 16 == 0);
}
#else
void stack_is_aligned_at_entry() {}
#endif

struct counted {
  explicit counted(int& number) : count(number) { ++count; }
  ~counted() { --count; }
  int& count;
};

[[gnu::noinline]] void throw_below(int frames, int& alive) {
  const counted here(alive);
  if (frames == 0) throw std::runtime_error("thrown in a context");
  throw_below(frames - 1, alive);
}

void exceptions_are_caught_inside() {
  static int caught = 0;
  static int alive = 0;
  flow other([](flow& self) {
    for (;;) {
      try {
        throw_below(20, alive);
      } catch (const std::runtime_error&) {
        ++caught;
      }
      self.suspend();
    }
  });
  for (int i = 0; i < 3; ++i) other.resume();
  LARDER_EXPECT(caught == 3);
  LARDER_EXPECT(alive == 0);
}

struct walk {
  int frames = 0;
  void* last_function = nullptr;
  _Unwind_Reason_Code end = _URC_NO_REASON;
};

[[gnu::noinline]] void walk_below(int frames, walk& seen) {
  if (frames > 0) {
    walk_below(frames - 1, seen);
    asm volatile("");  // no tail call: each is a frame
    return;
  }
  seen.end = _Unwind_Backtrace(
      [](_Unwind_Context* frame, void* to) {
        auto* noted = static_cast<walk*>(to);
        const auto address = _Unwind_GetIP(frame);  // 0 marks the end
        if (address != 0) noted->last_function = _Unwind_FindEnclosingFunction(reinterpret_cast<void*>(address - 1));
        return ++noted->frames < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
      },
      &seen);
}

void unwinding_ends_where_context_began() {
  static walk seen;
  flow other([](flow& self) {
    for (;;) {
      seen = {};
      walk_below(10, seen);
      self.suspend();
    }
  });
  for (int i = 0; i < 2; ++i) {  // before the first suspension, and after it
    other.resume();
    // The latter on POWER, as at the bottom of any thread there.
    LARDER_EXPECT(seen.end == _URC_END_OF_STACK || seen.end == _URC_NORMAL_STOP);
    LARDER_EXPECT(seen.frames > 11 && seen.frames < 20);
#if !LARDER_BOOST_CONTEXT
    LARDER_EXPECT(seen.last_function == reinterpret_cast<void*>(&larder_enter_context));
#endif
  }
}

}  // namespace

int main() {
  both_sides_alternate();
  registers_are_kept();
  control_word_belongs_to_context();
  stack_is_aligned_at_entry();
  exceptions_are_caught_inside();
  unwinding_ends_where_context_began();
  return failures > 0 ? 1 : 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// Our context switch beside Boost.Context's: one seeded story is told over each, and both must tell the same.
//
// A story is a few flows of control, each on a stack of its own. Whoever runs draws what happens next: it resumes
// another, suspends itself or one that it runs within, calls itself, throws, changes how numbers are rounded, computes,
// or ends. All draw from one generator, so the drawing itself goes astray where a switch does; what each sees is noted.
// Boost is used by its public interface, and not as src/coro/context_boost.cc does.
#include <algorithm>
#include <array>
#include <bit>
#include <cfenv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <gtest/gtest.h>

#include "coro/context.h"
#include "tests/support/kept_registers.h"
#include "tests/support/model_random.h"

namespace larder::tests {
namespace {

constexpr std::size_t stack_size = 256 * 1024;

// What a story needs of a switch: `start` before the first resume and after the body has returned; `suspend` on the
// flow's own stack, or on that of one that runs within it.
class own_flow {
 public:
  ~own_flow() { std::free(stack_); }
  own_flow() = default;
  own_flow(const own_flow&) = delete;
  own_flow& operator=(const own_flow&) = delete;

  void start(std::function<void()> body) {
    body_ = std::move(body);
    own_ = coro::make_context(static_cast<std::byte*>(stack_) + stack_size, begin, this);
  }
  void resume() { coro::switch_context(resumer_, own_); }
  void suspend() { coro::switch_context(own_, resumer_); }

 private:
  static void begin(void* self) {
    auto* mine = static_cast<own_flow*>(self);
    mine->body_();
    mine->suspend();
    std::abort();  // it has ended
  }

  void* const stack_ = std::aligned_alloc(4096, stack_size);
  coro::context own_;
  coro::context resumer_;
  std::function<void()> body_;
};

class boost_flow {
 public:
  void start(std::function<void()> body) {
    body_ = std::move(body);
    own_ = boost::context::fiber(std::allocator_arg, boost::context::fixedsize_stack(stack_size),
                                 [this](boost::context::fiber&& resumer) {
                                   resumer_ = std::move(resumer);
                                   body_();
                                   return std::move(resumer_);
                                 });
  }
  void resume() { own_ = std::move(own_).resume(); }
  void suspend() { resumer_ = std::move(resumer_).resume(); }

 private:
  boost::context::fiber own_;
  boost::context::fiber resumer_;
  std::function<void()> body_;
};

enum class event : std::uint64_t {
  starts,
  resumes,
  returns,
  suspends,
  goes_on,
  rounds,
  computes,
  calls,
  catches,
  ends
};
constexpr std::size_t event_kinds = 10;

struct noted {
  std::uint64_t flow;
  event what;
  std::uint64_t value;
  int rounding;

  bool operator==(const noted&) const = default;
};

std::ostream& operator<<(std::ostream& to, const noted& one) {
  return to << "flow " << one.flow << ", event " << static_cast<std::uint64_t>(one.what) << ", value " << one.value
            << ", rounding " << one.rounding;
}

// Rounded as the control words say at this moment: volatile keeps the divisions here. On x86-64 two units compute.
std::uint64_t thirds() {
  volatile double of_double = 1.0;
  of_double = of_double / 3.0;
  volatile long double of_long = 1.0L;
  of_long = of_long / 3.0L * 3.0L;
  return std::bit_cast<std::uint64_t>(double{of_double}) * 4 + (of_long < 1.0L ? 1U : of_long > 1.0L ? 2U : 0U);
}

template <typename Flow>
class story {
 public:
  explicit story(std::uint64_t stream) : random_(stream) {}

  std::vector<noted> tell(int resumes) {
    const int before = std::fegetround();
    while (resumes-- > 0) {
      resume_one();
      if (random_.one_in(4)) round();
    }
    ending_ = true;
    for (std::uint64_t i = 0; i < flows_.size(); ++i) {
      while (flows_[i].now == phase::suspended) resume(i);
    }
    std::fesetround(before);
    return std::move(told_);
  }

 private:
  enum class phase { idle, suspended, running };
  static constexpr std::uint64_t nobody = 99;
  static constexpr int depth_max = 6;

  struct actor {
    Flow flow;
    phase now = phase::idle;
    std::vector<std::uint64_t> within;  // while suspended: itself, and who ran within it then
    std::uint64_t passed = 0;
    std::exception_ptr thrown;
  };

  std::uint64_t who() const { return running_.empty() ? nobody : running_.back(); }
  void note(event what, std::uint64_t value) { told_.push_back({who(), what, value, std::fegetround()}); }

  // Now and then with every register full that a callee must keep; how many came back changed is noted.
  void crossing(event after, void (*cross)(void*), Flow& flow, const std::uint64_t& passed) {
    std::uint64_t changed = 0;
    if (random_.one_in(3)) {
      changed = registers_changed_by(cross, &flow, random_.below(1'000'000));
    } else {
      cross(&flow);
    }
    EXPECT_EQ(changed, 0U);
    note(after, passed * 100 + changed);
  }

  void round() {
    constexpr std::array<int, 4> modes{FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    const int mode = modes[random_.below(modes.size())];
#if defined(__x86_64__)  // for some other processors Boost.Context leaves that to the thread
    std::fesetround(mode);
#endif
    note(event::rounds, static_cast<std::uint64_t>(mode));
  }

  void resume_one() {
    const std::uint64_t other = random_.below(flows_.size());
    actor& chosen = flows_[other];
    if (chosen.now == phase::running) return;
    if (chosen.now == phase::idle) {
      note(event::starts, other);
      chosen.flow.start([this, other] { live(other); });
      chosen.within = {other};
    }
    try {
      resume(other);
    } catch (const std::runtime_error& error) {
      note(event::catches, std::string(error.what()).size());
    }
  }

  void resume(std::uint64_t other) {
    actor& chosen = flows_[other];
    chosen.passed = random_.below(1000);
    note(event::resumes, other * 1000 + chosen.passed);
    chosen.now = phase::running;
    running_.insert(running_.end(), chosen.within.begin(), chosen.within.end());
    crossing(
        event::returns, [](void* flow) { static_cast<Flow*>(flow)->resume(); }, chosen.flow, chosen.passed);
    if (chosen.thrown) std::rethrow_exception(std::exchange(chosen.thrown, nullptr));
  }

  void suspend(std::uint64_t outermost) {
    actor& chosen = flows_[running_[outermost]];
    chosen.passed = random_.below(1000);
    note(event::suspends, running_[outermost] * 1000 + chosen.passed);
    chosen.now = phase::suspended;
    const auto from = running_.begin() + static_cast<std::ptrdiff_t>(outermost);
    chosen.within.assign(from, running_.end());
    running_.erase(from, running_.end());
    crossing(
        event::goes_on, [](void* flow) { static_cast<Flow*>(flow)->suspend(); }, chosen.flow, chosen.passed);
  }

  void live(std::uint64_t self) {
    note(event::goes_on, flows_[self].passed);
    try {
      act(0);
    } catch (...) {
      flows_[self].thrown = std::current_exception();
    }
    note(event::ends, flows_[self].thrown ? 1 : 0);
    flows_[self].now = phase::idle;
    flows_[self].passed = 0;
    running_.pop_back();
  }

  // A frame of whoever runs: acts until it returns or throws. What it holds must still be there after each act.
  void act(int depth) {
    std::array<std::uint64_t, 16> held;
    for (std::uint64_t& value : held) value = random_.below(1'000'000);
    const auto sum = [&held] {
      std::uint64_t all = 0;
      for (const std::uint64_t value : held) all = all * 31 + value;
      return all;
    };
    const std::uint64_t expected = sum();
    while (!ending_) {
      switch (random_.below(12)) {
        case 0:
        case 1:
          if (running_.size() < 4) resume_one();
          break;
        case 2:
        case 3:
        case 4:
          suspend(running_.size() - 1);
          break;
        case 5:
          suspend(random_.below(running_.size()));
          break;
        case 6:
          round();
          break;
        case 7:
          note(event::computes, thirds());
          break;
        case 8:
        case 9:
          if (depth < depth_max) call(depth);
          break;
        case 10:
          if (random_.one_in(2)) throw std::runtime_error(std::string(random_.below(50), 'x'));
          break;
        default:
          if (random_.one_in(2)) return;
      }
      EXPECT_EQ(sum(), expected);
    }
  }

  void call(int depth) {
    note(event::calls, static_cast<std::uint64_t>(depth));
    if (random_.one_in(2)) return act(depth + 1);  // what it throws goes on up, at last to the resumer
    try {
      act(depth + 1);
    } catch (const std::runtime_error& error) {
      note(event::catches, std::string(error.what()).size());
    }
  }

  model_random random_;
  std::array<actor, 7> flows_;
  std::vector<std::uint64_t> running_;  // outermost first
  std::vector<noted> told_;
  bool ending_ = false;
};

TEST(BoostContextTest, OurSwitchTellsTheSameStories) {
  std::array<std::uint64_t, event_kinds> seen{};
  for (std::uint64_t stream = 0; stream < 200; ++stream) {
    SCOPED_TRACE("story " + std::to_string(stream));
    story<own_flow> told_by_ours(stream);
    story<boost_flow> told_by_boost(stream);
    const std::vector<noted> ours = told_by_ours.tell(300);
    const std::vector<noted> reference = told_by_boost.tell(300);
    for (std::size_t i = 0; i < std::min(ours.size(), reference.size()); ++i) {
      ASSERT_EQ(ours[i], reference[i]) << "at step " << i;
    }
    ASSERT_EQ(ours.size(), reference.size());
    for (const noted& one : ours) ++seen[static_cast<std::size_t>(one.what)];
    if (HasFailure()) return;
  }
  for (std::size_t kind = 0; kind < event_kinds; ++kind) EXPECT_GT(seen[kind], 1000U) << "event " << kind;
}

}  // namespace
}  // namespace larder::tests

// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/coroutines.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>

#include "base/sanitizers.h"

namespace larder::tests {
namespace {

#ifdef LARDER_ADDRESS_SANITIZER
// What it does of its own within an allocation takes more stack than the smallest have.
constexpr bytes sizes[] = {bytes{64U << 10}, bytes{256U << 10}, bytes{1U << 20}};
#else
constexpr bytes sizes[] = {bytes{16U << 10}, bytes{32U << 10}, bytes{64U << 10}, bytes{256U << 10}, bytes{1U << 20}};
#endif
constexpr std::uint32_t depth_max = 8;

void* as_pointer(std::uint64_t value) { return reinterpret_cast<void*>(value); }
std::uint64_t as_number(void* value) { return reinterpret_cast<std::uint64_t>(value); }

}  // namespace

// Stands on the stack, so it ends by return, by exception and by cancellation.
class soaked_coroutines::life {
 public:
  explicit life(soaked_coroutines& all) : all_(all) { ++all_.begun_; }
  ~life() { ++all_.ended_; }
  life(const life&) = delete;
  life& operator=(const life&) = delete;

 private:
  soaked_coroutines& all_;
};

void soaked_coroutines::script::operator()(void* first) const {
  const life mine(*all);
  descend(depth, as_number(first));
  if (throws) throw failure();
}

// What stands on the stack must be there after each yield, on whichever thread.
void soaked_coroutines::script::descend(std::uint32_t left, std::uint64_t value) const {
  std::array<std::uint64_t, 32> kept;
  kept.fill(value);
  if (left > 0) {
    descend(left - 1, value);
  } else {
    for (std::uint32_t i = 0; i < yields; ++i) {
      if (nests) {
        coroutine inner([] { coroutine::yield(); });
        inner.resume();
        if (i % 2 == 0) inner.resume();
      }
      value = as_number(coroutine::yield(as_pointer(value + 1)));
    }
  }
  const volatile std::uint64_t* written = kept.data();
  for (std::size_t i = 1; i < kept.size(); ++i) {
    if (written[i] != written[0]) ++all->broken_;
  }
}

void soaked_coroutines::create(model_random& random, place& empty) {
  const script follows{this, static_cast<std::uint32_t>(random.below(20)),
                       static_cast<std::uint32_t>(random.below(depth_max)), random.one_in(10), random.one_in(10)};
  // Small ones are more likely.
  const bytes size = sizes[std::min(random.below(std::size(sizes)), random.below(std::size(sizes)))];
  ++created_;
  empty.one.emplace(follows, coroutine::options{.stack_size = size, .name = "soaked"});
}

bool soaked_coroutines::resume(model_random& random, coroutine& one) {
  const std::uint64_t value = random.between(1, 1U << 30);
  try {
    const std::uint64_t answer = as_number(one.resume(as_pointer(value)));
    EXPECT_EQ(answer, one.done() ? 0 : value + 1);
  } catch (const failure&) {
    EXPECT_TRUE(one.done());
  }
  return one.done();
}

void soaked_coroutines::take_steps(model_random& random, int count) {
  for (int step = 0; step < count; ++step) {
    place& here = places_[random.below(places_.size())];
    const std::unique_lock<std::mutex> held(here.guard, std::try_to_lock);
    if (!held) continue;
    if (!here.one) {
      create(random, here);
    } else if (random.one_in(30)) {
      here.one.reset();
    } else if (random.one_in(10)) {
      place& other = places_[random.below(places_.size())];
      if (&other == &here) continue;
      const std::unique_lock<std::mutex> other_held(other.guard, std::try_to_lock);
      if (other_held) std::swap(here.one, other.one);
    } else if (resume(random, *here.one)) {
      here.one.reset();
    }
  }
}

void soaked_coroutines::end_all(model_random& random) {
  for (place& each : places_) {
    if (each.one && random.one_in(2)) {
      while (!resume(random, *each.one)) {
      }
    }
    each.one.reset();
  }
}

std::uint64_t soaked_coroutines::check_at_rest() {
  EXPECT_EQ(begun_.load(), ended_.load());
  EXPECT_LE(begun_.load(), created_.load());  // some are cancelled before their first resume
  EXPECT_EQ(broken_.load(), 0U);
  return created_;
}

}  // namespace larder::tests

// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/tasks.h"

#include <chrono>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include <larder/coroutine.h>

namespace larder::tests {

void soaked_tasks::run_family(model_random& random) {
  const auto seed = static_cast<std::uint32_t>(random.between(1, 1U << 30));
  try {
    runtime_.run([this, seed] { live(seed, 1, true); });
  } catch (const failure&) {
    ++caught_;
  }
  while (runtime_.tasks() > alive_max / 2) std::this_thread::yield();
}

void soaked_tasks::live(std::uint32_t seed, int generation, bool may_throw) {
  ++begun_;
  std::minstd_rand random(seed);
  for (auto steps = 2 + random() % 6; steps > 0; --steps) {
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        if (generation < generations) spawn_child(random, generation + 1);
        break;
      case 3:
        this_task::sleep_for(std::chrono::microseconds(random() % 100));
        break;
      case 4:
      case 5:
        visit(random);
        break;
      case 6:
        have_a_coroutine(random);
        break;
      default:
        this_task::yield();
    }
  }
  ++ended_;
  if (!may_throw || random() % 8 != 0) return;
  ++thrown_;
  throw failure();
}

void soaked_tasks::spawn_child(std::minstd_rand& random, int generation) {
  const auto seed = static_cast<std::uint32_t>(random());
  const auto quietly = [this, seed, generation] { live(seed, generation, false); };
  switch (random() % 4) {
    case 0:
      runtime_.spawn_detached(quietly);
      break;
    case 1:
      runtime_.spawn_detached_on(static_cast<unsigned>(random() % runtime_.workers()), quietly);
      break;
    case 2: {
      const task waited_for_by_its_destructor = runtime_.spawn(quietly);
      if (random() % 2 == 0) this_task::yield();
      break;
    }
    default: {
      task child = runtime_.spawn([this, seed, generation] { live(seed, generation, true); });
      try {
        child.join();
      } catch (const failure&) {
        ++caught_;
      }
    }
  }
}

void soaked_tasks::visit(std::minstd_rand& random) {
  const std::lock_guard<mutex> held(guard_);
  ++visits_expected_;
  ++visits_;
  if (random() % 4 == 0) this_task::yield();
  ++echo_;
}

// May park the task from within the coroutine.
void soaked_tasks::have_a_coroutine(std::minstd_rand& random) {
  coroutine inner([this, &random] {
    visit(random);
    coroutine::yield();
    visit(random);
  });
  inner.resume();
  if (random() % 2 == 0) inner.resume();  // else it is cancelled
}

std::uint64_t soaked_tasks::check_at_rest() {
  EXPECT_EQ(begun_.load(), ended_.load());
  EXPECT_EQ(thrown_.load(), caught_.load());
  EXPECT_TRUE(guard_.try_lock());
  EXPECT_EQ(visits_, visits_expected_.load());
  EXPECT_EQ(visits_, echo_);
  guard_.unlock();
  return begun_;
}

}  // namespace larder::tests

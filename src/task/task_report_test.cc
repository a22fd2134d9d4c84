// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/blocking.h>
#include <larder/channel.h>
#include <larder/coroutine.h>
#include <larder/io.h>
#include <larder/object_cache.h>
#include <larder/runtime.h>
#include <larder/select.h>
#include <larder/semaphore.h>
#include <larder/sync.h>
#include <larder/task_group.h>
#include <larder/task_report.h>

#include "base/sanitizers.h"
#include "os/file.h"
#include "os/socket.h"
#include "tests/support/run_on_all.h"
#include "tests/support/runtime_over_workers.h"

namespace larder {
namespace {

using namespace std::chrono_literals;
using activity = task_state::activity;
using tests::share;

// A task_state that stays.
struct shown {
  std::string name;
  activity now;
  unsigned worker;
  std::string waits_for;
  const void* object;
  std::string object_name;
  int descriptor;
  std::string holder;
  std::chrono::nanoseconds waited;
  time_point deadline;
  bool deadlocked;
};

class TaskReportTest : public tests::runtime_over_workers {
 protected:
  std::map<std::string, shown> by_name() const {
    std::map<std::string, shown> all;
    runtime_->for_each_task([&](const task_state& one) {
      EXPECT_EQ(one.runtime, "tested");
      const std::string name(one.name);
      const bool is_new =
          all.try_emplace(name, shown{name, one.now, one.worker, std::string(one.waits_for), one.object,
                                      std::string(one.object_name), one.descriptor, std::string(one.holder), one.waited,
                                      one.deadline, one.deadlocked})
              .second;
      EXPECT_TRUE(is_new || name == "task") << name << " is shown twice";
    });
    return all;
  }
  // Once a task of that name waits.
  shown waiting(const std::string& name) const {
    for (;;) {
      const auto all = by_name();
      const auto found = all.find(name);
      if (found != all.end() && found->second.now == activity::waiting) return found->second;
      std::this_thread::sleep_for(100us);
    }
  }
  shown waiting_for(const std::string& name, const std::string& what) const {
    shown found = waiting(name);
    EXPECT_EQ(found.waits_for, what);
    EXPECT_LT(found.worker, runtime_->workers());
    EXPECT_FALSE(found.deadlocked);
    return found;
  }
  template <typename Body>
  task named(const char* name, Body body) {
    return runtime_->spawn([name, body = std::move(body)] {
      this_task::set_name(name);
      body();
    });
  }
  static void stop(task& one) {
    one.cancel();
    one.join();
  }
};
INSTANTIATE_TEST_SUITE_P(Over, TaskReportTest, testing::Values(1, 2, 4), tests::name_of_workers);

TEST_P(TaskReportTest, ATaskHasTheNameThatItTakes) {
  runtime_->run([] {
    EXPECT_EQ(this_task::name(), "task");
    std::string own = "first";
    this_task::set_name(own);
    own = "other";
    EXPECT_EQ(this_task::name(), "first");
    this_task::set_name(std::string(100, 'x'));
    EXPECT_EQ(this_task::name(), std::string(31, 'x'));
    this_task::set_name("");
    EXPECT_EQ(this_task::name(), "");
  });
  for (int i = 0; i < 20; ++i) {
    runtime_->run([] {
      EXPECT_EQ(this_task::name(), "task") << "the name of one that had the stack before";
      this_task::set_name("mine");
      this_task::yield();
      EXPECT_EQ(this_task::name(), "mine");
    });
  }
  this_task::set_name("a thread has none");
  EXPECT_EQ(this_task::name(), "");
}

TEST_P(TaskReportTest, ATaskIsShownFromItsStartToItsEnd) {
  std::atomic<bool> goes_on{true};
  EXPECT_TRUE(by_name().empty());
  task one = named("one", [&] {
    while (goes_on) this_task::yield();
  });
  while (!by_name().contains("one")) std::this_thread::sleep_for(100us);
  for (;;) {
    const auto all = by_name();
    ASSERT_EQ(all.count("one"), 1U);
    EXPECT_NE(all.at("one").now, activity::waiting);
    EXPECT_EQ(all.at("one").waits_for, "");
    if (all.at("one").now == activity::running) break;
  }
  goes_on = false;
  one.join();
  EXPECT_TRUE(by_name().empty());
}

TEST_P(TaskReportTest, ATaskBehindABusyWorkerIsReady) {
  std::atomic<bool> goes_on{true};
  std::atomic<bool> busy{false};
  task hog = runtime_->spawn_on(0, [&] {
    this_task::set_name("hog");
    busy = true;
    while (goes_on) std::this_thread::yield();
  });
  while (!busy) std::this_thread::yield();
  const task behind = runtime_->spawn_on(0, [] {});
  const auto all = by_name();
  EXPECT_EQ(all.at("hog").now, activity::running);
  EXPECT_EQ(all.at("hog").worker, 0U);
  EXPECT_EQ(all.at("task").now, activity::ready);
  EXPECT_EQ(all.at("task").worker, 0U);
  const std::string text = runtime_->report();
  EXPECT_NE(text.find("running, worker 0: \"hog\"\n"), std::string::npos) << text;
  EXPECT_NE(text.find("ready, worker 0: \"task\"\n"), std::string::npos) << text;
  goes_on = false;
}

TEST_P(TaskReportTest, SleepAndJoin) {
  const time_point end = std::chrono::steady_clock::now() + 1h;
  task sleeper = named("sleeper", [&] { this_task::sleep_until(end); });
  shown seen = waiting_for("sleeper", "sleep");
  EXPECT_EQ(seen.deadline, end);
  EXPECT_EQ(seen.object, nullptr);
  EXPECT_EQ(seen.holder, "");
  task joiner = named("joiner", [&] { sleeper.join(); });
  seen = waiting_for("joiner", "join");
  EXPECT_EQ(seen.holder, "sleeper");
  EXPECT_EQ(seen.deadline, no_deadline);
  task_group children(*runtime_);
  children.spawn([] { this_task::sleep_for(1h); });
  task parent = named("parent", [&] { children.wait(); });
  waiting_for("parent", "task_group");
  stop(parent);
  sleeper.cancel();
  joiner.join();
}

TEST_P(TaskReportTest, Locks) {
  mutex taken;
  taken.lock();
  task locker = named("locker", [&] { const std::lock_guard held(taken); });
  shown seen = waiting_for("locker", "mutex");
  EXPECT_EQ(seen.object, &taken);
  EXPECT_EQ(seen.holder, "a thread");
  task trier = named("trier", [&] { EXPECT_FALSE(taken.try_lock_until(std::chrono::steady_clock::now() + 1h)); });
  EXPECT_NE(waiting_for("trier", "mutex").deadline, no_deadline);
  stop(trier);
  taken.unlock();
  locker.join();

  shared_mutex shared;
  semaphore units(0);
  task writer = named("writer", [&] {
    const std::lock_guard held(shared);
    units.acquire();
  });
  EXPECT_EQ(waiting_for("writer", "semaphore").object, &units);
  task reader = named("reader", [&] { const std::shared_lock held(shared); });
  seen = waiting_for("reader", "shared_mutex for reading");
  EXPECT_EQ(seen.object, &shared);
  EXPECT_EQ(seen.holder, "writer");
  units.release();
  writer.join();
  reader.join();

  condition changed;
  mutex guard;
  bool ready = false;
  task conditioner = named("conditioner", [&] {
    std::unique_lock held(guard);
    changed.wait(held, [&] { return ready; });
  });
  EXPECT_EQ(waiting_for("conditioner", "condition").object, &changed);
  guard.lock();
  ready = true;
  changed.notify_all();
  seen = waiting_for("conditioner", "mutex");
  EXPECT_EQ(seen.object, &guard);
  guard.unlock();
  conditioner.join();
}

TEST_P(TaskReportTest, Channels) {
  channel<int> numbers(0);
  channel<int> others(0);
  task receiver = named("receiver", [&] { (void)numbers.receive(); });
  EXPECT_EQ(waiting_for("receiver", "channel receive").object, &numbers);
  task sender = named("sender", [&] { (void)others.send(1); });
  EXPECT_EQ(waiting_for("sender", "channel send").object, &others);
  channel<int> third(0);
  task selecter = named("selecter", [&] {
    select(no_deadline, on_receive(third, [](std::optional<int>) {}), on_send(third, 1, [](bool) {}));
  });
  waiting_for("selecter", "select");
  for (task* each : {&receiver, &sender, &selecter}) stop(*each);
}

TEST_P(TaskReportTest, TheSystem) {
  auto sockets = *os::socket_pair();
  task receiver = named("receiver", [&] {
    std::array<std::byte, 1> one;
    (void)io::receive(sockets.first.number(), one);
  });
  EXPECT_EQ(waiting_for("receiver", "socket, to read").descriptor, sockets.first.number());
  std::atomic<bool> goes_on{true};
  task caller = named("caller", [&] {
    blocking([&] {
      while (goes_on) std::this_thread::sleep_for(100us);
    });
  });
  waiting_for("caller", "blocking call");
  goes_on = false;
  caller.join();
  stop(receiver);
}

TEST_P(TaskReportTest, Memory) {
  memory_budget small("small", {.limit = 64_KiB});
  ASSERT_TRUE(small.try_charge(64_KiB));
  task charger = named("charger", [&] {
    ASSERT_TRUE(small.charge(4_KiB, no_deadline));
    small.release(4_KiB);
  });
  shown seen = waiting_for("charger", "memory");
  EXPECT_EQ(seen.object, &small);
  EXPECT_EQ(seen.object_name, "small");
  object_cache<int> cache("numbers", {.limit = 1, .budget = &budget_});
  int* only = cache.get();
  task getter = named("getter", [&] { cache.put(cache.get()); });
  seen = waiting_for("getter", "object");
  EXPECT_EQ(seen.object_name, "numbers");
  EXPECT_NE(runtime_->report().find("\"charger\" for "), std::string::npos);
  EXPECT_NE(runtime_->report().find(": memory of \"small\"\n"), std::string::npos) << runtime_->report();
  cache.put(only);
  small.release(64_KiB);
  getter.join();
  charger.join();
}

// A thread, and a task of another runtime, are named where they hold something; the tasks of others are not listed.
TEST_P(TaskReportTest, OnlyItsOwnTasksAreShown) {
  auto other = *runtime::create("other", {.workers = 1, .budget = &budget_});
  mutex taken;
  semaphore end(0);
  task holder = other->spawn([&] {
    this_task::set_name("stranger");
    const std::lock_guard held(taken);
    end.acquire();
  });
  std::string strangers;
  while (strangers.find("semaphore") == std::string::npos) strangers = other->report();
  EXPECT_EQ(strangers.find("runtime \"other\": 1 waiting, 0 running, 0 ready\n"), 0U) << strangers;
  task locker = named("locker", [&] { const std::lock_guard held(taken); });
  EXPECT_EQ(waiting("locker").holder, "stranger");
  EXPECT_FALSE(by_name().contains("stranger"));
  end.release();
  holder.join();
  locker.join();
}

TEST_P(TaskReportTest, TheLongestWaitComesFirstAndTheRestIsCounted) {
  semaphore end(0);
  task old = named("old", [&] { end.acquire(); });
  waiting("old");
  std::this_thread::sleep_for(20ms);  // the coarse clock moves
  task young = named("young", [&] { end.acquire(); });
  waiting("young");
  const std::string both = runtime_->report();
  EXPECT_LT(both.find("\"old\" for "), both.find("\"young\" for ")) << both;
  EXPECT_NE(both.find("\"young\""), std::string::npos) << both;
  const std::string one = runtime_->report(1);
  EXPECT_NE(one.find("\"old\" for "), std::string::npos) << one;
  EXPECT_EQ(one.find("\"young\""), std::string::npos) << one;
  EXPECT_NE(one.find("waiting: 1 more\n"), std::string::npos) << one;
  EXPECT_GE(waiting("old").waited, 10ms);
  end.release(2);
  old.join();
  young.join();
}

TEST_P(TaskReportTest, NamesDoNotBreakLines) {
  semaphore end(0);
  task one = named("two\nlines", [&] { end.acquire(); });
  waiting("two\nlines");
  EXPECT_NE(runtime_->report().find("\"two?lines\""), std::string::npos);
  end.release();
  one.join();
}

// Tasks, and threads behind them, that each hold a mutex and wait for the next one's.
class circle {
 public:
  circle(runtime& where, std::size_t tasks, std::size_t threads) : members_(tasks + threads), mutexes_(members_) {
    for (std::size_t i = 0; i < members_; ++i) {
      const auto body = [this, i] {
        this_task::set_name("member " + std::to_string(i));
        mutexes_[i].lock();
        ++ready_;
        while (ready_ != members_) this_task::yield();
        mutex& next = mutexes_[(i + 1) % members_];
        next.lock();
        next.unlock();
      };
      if (i < tasks) {
        tasks_.push_back(where.spawn(body));
      } else {
        threads_.emplace_back(body);
      }
    }
  }
  // Opens it: what each has locked is unlocked here.
  ~circle() {
    for (mutex& each : mutexes_) each.unlock();
    for (task& each : tasks_) each.join();
    for (std::thread& each : threads_) each.join();
  }

  // Whether a report says it, whomever it begins with.
  bool is_named_in(const std::string& report) const {
    for (std::size_t first = 0; first < members_; ++first) {
      std::string text = "\ndeadlock: ";
      for (std::size_t i = 0; i < members_; ++i) {
        char object[40];
        const std::size_t next = (first + i + 1) % members_;
        std::snprintf(object, sizeof object, "%p", static_cast<const void*>(&mutexes_[next]));
        text += i == 0 ? name_of(first) : ", which";
        text += std::string(" waits for mutex ") + object + " held by " + name_of(next);
      }
      if (report.find(text + "\n") != std::string::npos) return true;
    }
    return false;
  }

 private:
  std::string name_of(std::size_t member) const {
    return member < tasks_.size() ? "\"member " + std::to_string(member) + "\"" : "a thread";
  }

  const std::size_t members_;
  std::deque<mutex> mutexes_;
  std::atomic<std::size_t> ready_{0};
  std::vector<task> tasks_;
  std::vector<std::thread> threads_;
};

// A report once it names a deadlock.
std::string report_of_deadlock(const runtime& where) {
  std::string text;
  while (text.find("\ndeadlock: ") == std::string::npos) text = where.report();
  return text;
}

TEST_P(TaskReportTest, ADeadlockOfTwoIsNamed) {
  const circle stuck(*runtime_, 2, 0);
  const std::string text = report_of_deadlock(*runtime_);
  EXPECT_TRUE(stuck.is_named_in(text)) << text;
  const auto all = by_name();
  for (const char* name : {"member 0", "member 1"}) {
    EXPECT_TRUE(all.at(name).deadlocked);
    EXPECT_EQ(all.at(name).waits_for, "mutex");
  }
}

TEST_P(TaskReportTest, DeadlocksOfThreeAndOfTwoAreBothNamed) {
  const circle three(*runtime_, 3, 0);
  const circle two(*runtime_, 2, 0);
  for (;;) {
    const std::string text = runtime_->report();
    if (three.is_named_in(text) && two.is_named_in(text)) break;
  }
}

TEST_P(TaskReportTest, ThreadsAreInADeadlockToo) {
  const circle stuck(*runtime_, 1, 2);
  const std::string text = report_of_deadlock(*runtime_);
  EXPECT_TRUE(stuck.is_named_in(text)) << text;
}

TEST_P(TaskReportTest, AMutexLockedTwiceIsADeadlockOfOne) {
  mutex once;
  task fool = named("fool", [&] {
    once.lock();
    once.lock();
    once.unlock();
  });
  const std::string text = report_of_deadlock(*runtime_);
  EXPECT_NE(text.find("deadlock: \"fool\" waits for mutex "), std::string::npos) << text;
  EXPECT_NE(text.find(" held by \"fool\"\n"), std::string::npos) << text;
  once.unlock();
  fool.join();
}

TEST_P(TaskReportTest, AJoinIsPartOfADeadlock) {
  mutex taken;
  std::atomic<bool> locked{false};
  task joined;
  std::atomic<bool> ready{false};
  task joiner = named("joiner", [&] {
    taken.lock();
    locked = true;
    while (!ready) this_task::yield();
    joined.join();
  });
  while (!locked) std::this_thread::yield();
  joined = named("joined", [&] { const std::lock_guard held(taken); });
  ready = true;
  const std::string text = report_of_deadlock(*runtime_);
  const bool begins_with_joiner =
      text.find("deadlock: \"joiner\" waits for the end of \"joined\", which waits for mutex ") != std::string::npos;
  const bool begins_with_joined =
      text.find("deadlock: \"joined\" waits for mutex ") != std::string::npos &&
      text.find(" held by \"joiner\", which waits for the end of \"joined\"\n") != std::string::npos;
  EXPECT_TRUE(begins_with_joiner || begins_with_joined) << text;
  taken.unlock();
  joiner.join();
}

// Nobody is named who waits for a circle, or in one that a deadline opens.
TEST_P(TaskReportTest, WhoOnlyWaitsForADeadlockIsInNone) {
  mutex mine;
  const circle stuck(*runtime_, 2, 0);
  task joined = named("behind", [&] {
    const std::lock_guard held(mine);
    this_task::sleep_for(1h);
  });
  waiting_for("behind", "sleep");
  task waits = named("waits", [&] { const std::lock_guard held(mine); });
  EXPECT_EQ(waiting_for("waits", "mutex").holder, "behind");
  const std::string text = report_of_deadlock(*runtime_);
  EXPECT_EQ(text.find("deadlock: "), text.rfind("deadlock: ")) << text;
  EXPECT_FALSE(by_name().at("waits").deadlocked);
  stop(joined);
  waits.join();
}

TEST_P(TaskReportTest, ACircleWithADeadlineIsNoDeadlock) {
  mutex first;
  mutex second;
  std::atomic<int> locked{0};
  const auto lock_both = [&locked](mutex& own, mutex& other, time_point deadline) {
    const std::lock_guard held(own);
    ++locked;
    while (locked != 2) this_task::yield();
    if (other.try_lock_until(deadline)) other.unlock();
  };
  task patient = named("patient", [&] { lock_both(first, second, no_deadline); });
  const time_point later = std::chrono::steady_clock::now() + 1h;
  task hasty = named("hasty", [&] { lock_both(second, first, later); });
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(waiting_for("patient", "mutex").holder, "hasty");
    EXPECT_EQ(waiting_for("hasty", "mutex").holder, "patient");
    EXPECT_EQ(runtime_->report().find("deadlock"), std::string::npos);
  }
  stop(hasty);
  patient.join();
}

// Thousands of tasks come, wait for each other and go while reports are taken by a task and by a thread.
TEST_P(TaskReportTest, ReportsAreTakenWhileTasksComeAndGo) {
  std::array<mutex, 4> mutexes;
  semaphore units(3);
  std::atomic<bool> goes_on{true};
  std::atomic<int> reports{0};
  const auto look = [&] {
    std::size_t tasks = 0;
    runtime_->for_each_task([&](const task_state& one) {
      ++tasks;
      EXPECT_FALSE(one.deadlocked);
      EXPECT_LT(one.worker, runtime_->workers());
      const bool whole = one.name == "task" || one.name == "watcher" || one.name == std::string(31, one.name[0]);
      EXPECT_TRUE(whole) << one.name;
      EXPECT_TRUE(one.holder.empty() || one.waits_for == "mutex" || one.waits_for == "join") << one.waits_for;
      EXPECT_TRUE(one.object == nullptr || one.object == &units || one.waits_for == "join" ||
                  one.waits_for == "object" || (one.object >= &mutexes[0] && one.object <= &mutexes[3]))
          << one.waits_for;
    });
    EXPECT_LT(tasks, 2000U);
    EXPECT_EQ(runtime_->report(3).find("deadlock"), std::string::npos);
    ++reports;
  };
  task watcher = named("watcher", [&] {
    while (goes_on) {
      look();
      this_task::sleep_for(200us);
    }
  });
  std::thread other_watcher([&] {
    while (goes_on) look();
  });
  for (int round = 0; round < 40 / share || reports < 10; ++round) {
    std::vector<task> all;
    for (int i = 0; i < 200; ++i) {
      all.push_back(runtime_->spawn([&, i] {
        this_task::set_name(std::string(31, static_cast<char>('a' + i % 26)));
        const auto low = static_cast<std::size_t>(i) % 3;
        const std::lock_guard first(mutexes[low]);
        this_task::yield();
        const std::lock_guard second(mutexes[low + 1]);
        units.acquire();
        if (i % 50 == 0) this_task::sleep_for(100us);
        this_task::set_name(std::string(31, static_cast<char>('A' + i % 26)));
        units.release();
      }));
    }
    for (task& each : all) each.join();
  }
  goes_on = false;
  watcher.join();
  other_watcher.join();
  EXPECT_EQ(runtime_->tasks(), 0U);
}

#if !defined(LARDER_ADDRESS_SANITIZER) && !defined(LARDER_THREAD_SANITIZER)  // which report faults themselves

[[gnu::noinline]] int fill_the_stack(int depth) {
  volatile char room[256] = {};
  room[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : fill_the_stack(depth + 1) + room[0];
}

TEST(TaskReportDeathTest, AnOverflowIsReportedByTheTasksName) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        EXPECT_TRUE(report_stack_overflow());
        auto tasks = *runtime::create("deep", {.workers = 1});
        tasks->run([] {
          this_task::set_name("deep one");
          fill_the_stack(0);
        });
      },
      "task \"deep one\" ran over the end of its stack of 64 KiB");
}

#endif

}  // namespace
}  // namespace larder

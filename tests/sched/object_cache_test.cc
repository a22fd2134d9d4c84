// SPDX-License-Identifier: Apache-2.0
//
// The object cache's protocol (src/cache/): arrays, depot, slabs, the queue of getters and the keeper, with restartable
// sequences and without. Caches of one to three objects, so that every thread wants what another has.
#include <array>
#include <cstdint>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>

#include "base/mutex.h"
#include "cache/cpu_cache.h"
#include "cache/keeper.h"
#include "tests/sched/explore.h"
#include "tests/sched/keeper.h"

namespace larder::sched {
namespace {

constexpr system_settings in_sequences{.cpus = 3, .sequences = os::sequence_mode::concurrency_id};
constexpr system_settings sharded{.cpus = 3, .sequences = os::sequence_mode::sharded};
// With a store that reaches other CPUs late, a signal within a sequence, and a move to another CPU.
constexpr system_settings disturbed{
    .migrations = 1, .restarts = 1, .store_delays = 1, .cpus = 3, .sequences = os::sequence_mode::concurrency_id};

// A get or put has a hundred steps, so the depth-first search sees a part only; the random one goes everywhere.
constexpr search_options search(const system_settings& system) {
  return {.preemptions = 2, .schedules_max = 4'000, .random_schedules = 2'000, .system = system};
}

template <typename Scenario>
void expect_no_failure() {
  EXPECT_TRUE(no_schedule_fails<Scenario>(search(in_sequences)));
  EXPECT_TRUE(no_schedule_fails<Scenario>(search(sharded)));
  EXPECT_TRUE(no_schedule_fails<Scenario>(search(disturbed)));
}

// -- the arrays alone

const os::array_front& as_front(const ::larder::detail::cpu_front& users) {
  return reinterpret_cast<const os::array_front&>(users);
}

// The CPU layer under a mutex as the layer below has it. Each object is in one place: with a thread, or in an array.
class arrays_scenario : public scenario {
 public:
  void audit() override {
    cpus.audit("scheduled");
    cpus.close();
    for (int cpu = 0; cpu < cpus.cpus(); ++cpu) {
      void* left[8];
      const std::size_t count = cpus.take_from(cpu, left, 8);
      for (std::size_t i = 0; i < count; ++i) hold(left[i]);
    }
    for (const unsigned times : held) require(times == 1, "an object is in %u places", times);
  }

 protected:
  arrays_scenario() : cpus(budget, users, {true, true}, 64, 1000) {
    require(cpus.make_array(), "no array");
    for (unsigned i = 0; i < held.size(); ++i) require(cpus.push(&held[i]), "an array takes no object");
  }

  // As inlined code does it; without sequences that leads to the library.
  void* pop() {
    void* object = os::pop(as_front(users));
    return object != nullptr ? object : cpus.pop();
  }
  bool push(void* object) { return os::push(as_front(users), object) || cpus.push(object); }
  void hold(void* object) {
    if (object == nullptr) return;
    ++*static_cast<unsigned*>(object);
    require(*static_cast<unsigned*>(object) == 1, "an object was given twice");
  }
  // Takes one and puts it back, where there is room; else keeps it.
  void use() {
    void* object = pop();
    if (object == nullptr) return;
    hold(object);
    --*static_cast<unsigned*>(object);
    if (!push(object)) hold(object);
  }

  memory_budget budget{"scheduled", {}};
  ::larder::detail::cpu_front users;
  cache::cpu_cache cpus;
  base::mutex below{base::lock_rank::cache_slabs};
  std::array<unsigned, 2> held{};
};

// Two threads of one CPU use its array while a third empties it.
class collected_arrays : public arrays_scenario {
 public:
  collected_arrays() {
    thread(
        "user", [this] { use(); }, 0);
    thread(
        "neighbour", [this] { hold(pop()); }, 0);
    thread(
        "collector",
        [this] {
          const base::lock locked(below);
          cpus.close();
          void* taken[8];
          const std::size_t count = cpus.take_from(0, taken, 8);
          for (std::size_t i = 0; i < count; ++i) hold(taken[i]);
          cpus.open(false);
        },
        1);
  }
};

// KF-17
TEST(ObjectCacheSchedTest, WhatACollectorTakesNobodyElseHas) { expect_no_failure<collected_arrays>(); }

TEST(ObjectCacheSchedTest, ACollectorThatDoesNotFenceIsCaught) {
  EXPECT_TRUE(mutant_is_killed<collected_arrays>(base::mutant::close_without_fence, {.system = in_sequences}));
}

TEST(ObjectCacheSchedTest, ACollectorThatLeavesTheUsersInIsCaught) {
  EXPECT_TRUE(mutant_is_killed<collected_arrays>(base::mutant::users_stay_open, {.system = in_sequences}));
}

// An array moves to a larger one while two use it.
class growing_array : public arrays_scenario {
 public:
  growing_array() {
    thread(
        "grower",
        [this] {
          const base::lock locked(below);
          cpus.note_miss(cache::cpu_cache::miss::full);
          cpus.note_miss(cache::cpu_cache::miss::empty);
        },
        0);
    thread(
        "user", [this] { use(); }, 0);
    thread(
        "neighbour", [this] { hold(pop()); }, 0);
  }
};

TEST(ObjectCacheSchedTest, AnArrayThatGrowsLosesAndDoublesNothing) { expect_no_failure<growing_array>(); }

TEST(ObjectCacheSchedTest, ReplacingAnArrayThatIsUsedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<growing_array>(base::mutant::replace_while_open, {.system = in_sequences}));
}

// Pushes are held all the time, though the arrays are closed meanwhile for another reason.
class held_arrays : public arrays_scenario {
 public:
  held_arrays() {
    cpus.close();
    void* taken[2];
    require(cpus.take_from(0, taken, 2) == 2, "the array held less than was pushed");
    for (void* each : taken) hold(each);
    cpus.open(true);
    thread(
        "user", [this] { require(!cpus.push(&held[0]), "an array took an object while pushes were held"); }, 0);
    thread(
        "keeper",
        [this] {
          const base::lock locked(below);
          cpus.close();
          cpus.open(true);
        },
        1);
  }
};

// KF-9
TEST(ObjectCacheSchedTest, PushesStayHeldWhileTheArraysAreClosed) { expect_no_failure<held_arrays>(); }

TEST(ObjectCacheSchedTest, APushThatForgetsThatTheGateMayCloseIsCaught) {
  EXPECT_TRUE(mutant_is_killed<held_arrays>(base::mutant::push_while_closed, search(sharded)));
}

// -- the whole cache

// Every object is built once before it is handed out, and undone once; nobody is given one that another has.
class cache_scenario : public scenario {
 public:
  void audit() override {
    // Whatever is out at the end is in `kept`.
    cache.audit();
    const raw_cache::statistics now = cache.stats();
    require(now.objects_out == out, "%llu objects are out, %u expected",
            static_cast<unsigned long long>(now.objects_out), out);
    require(now.waiting == 0, "somebody still waits");
    require(built == now.objects_built, "%u objects are built, counted %llu", built,
            static_cast<unsigned long long>(now.objects_built));
    cache.trim();
    require(cache.stats().objects_built <= cache.reservation() + out, "a trim left what nobody has");
    check();
  }

 protected:
  struct object {
    std::uint32_t state;
    std::uint32_t owners;
  };
  explicit cache_scenario(std::size_t limit, std::size_t size = 64, std::size_t reservation = 0, bool scratch = false)
      : cache("scheduled", options_for(limit, size, reservation, scratch)) {}
  // Everything that a constructor leaves out.
  virtual void check() {}

  object* own(void* given) {
    auto* mine = static_cast<object*>(given);
    require(mine->state == constructed, "an object was handed out that is not built");
    require(++mine->owners == 1, "an object was handed out twice");
    ++out;
    return mine;
  }
  object* get() {
    const result<void*> given = cache.get();
    require(static_cast<bool>(given), "get failed");
    return own(*given);
  }
  void put(object* mine) {
    --mine->owners;
    --out;
    cache.put(mine);
  }
  void use() { put(get()); }
  // The keeper comes by.
  static void keep() { cache::keeper::of_process().round(); }

  memory_budget budget{"scheduled", {.limit = 16_MiB}};
  unsigned built = 0;
  unsigned out = 0;
  raw_cache cache;

 private:
  static constexpr std::uint32_t constructed = 0xc0ffee;

  raw_cache::options options_for(std::size_t limit, std::size_t size, std::size_t reservation, bool scratch) {
    renew_keeper();
    raw_cache::options chosen;
    chosen.size = size;
    chosen.limit = limit;
    chosen.reservation = reservation;
    chosen.budget = &budget;
    if (scratch) {
      chosen.alignment = page_size;
      chosen.scratch = {.offset = page_size, .length = size - page_size};
    }
    chosen.context = this;
    chosen.construct = [](void* made, void* self) -> result<void> {
      auto* fresh = static_cast<object*>(made);
      require(fresh->state != constructed, "an object was constructed twice");
      *fresh = {constructed, 0};
      ++static_cast<cache_scenario*>(self)->built;
      return {};
    };
    chosen.destroy = [](void* undone, void* self) {
      auto* old = static_cast<object*>(undone);
      require(old->state == constructed && old->owners == 0, "an object was destroyed that is not free and built");
      old->state = 0;
      --static_cast<cache_scenario*>(self)->built;
    };
    return chosen;
  }
};

// Two CPUs get and put while somebody trims.
class trimmed : public cache_scenario {
 public:
  trimmed() : cache_scenario(2) {
    use();
    thread(
        "user", [this] { use(); }, 0);
    thread(
        "stranger", [this] { use(); }, 1);
    thread(
        "trimmer", [this] { cache.trim(); }, 2);
  }
};

// KF-1, KF-2
TEST(ObjectCacheSchedTest, TrimTakesNothingThatSomebodyHas) { expect_no_failure<trimmed>(); }

// One object, its owner on the CPU whose array it comes from, and two who want it; one of them is on that CPU too.
class one_object : public cache_scenario {
 public:
  one_object() : cache_scenario(1) {
    use();
    use();
    mine_ = get();
    thread(
        "owner", [this] { put(mine_); }, 0);
    thread(
        "getter", [this] { use(); }, 1);
    thread(
        "neighbour", [this] { use(); }, 0);
    thread(
        "trimmer", [this] { cache.trim(); }, 2);
  }

 private:
  object* mine_ = nullptr;
};

// KF-9, KF-20
TEST(ObjectCacheSchedTest, NobodyWaitsForEverForAnObjectThatWasPut) { expect_no_failure<one_object>(); }

TEST(ObjectCacheSchedTest, PutsThatAreNotHeldWhileSomebodyWaitsAreCaught) {
  EXPECT_TRUE(mutant_is_killed<one_object>(base::mutant::pushes_not_held, search(in_sequences)));
}

// The keeper comes while the only object goes from its owner's busy array to a getter. Another CPU's array is idle.
class kept : public cache_scenario {
 public:
  kept() : cache_scenario(1) {
    move_to_cpu(1);
    mine_ = get();
    put(mine_);
    move_to_cpu(0);
    for (int i = 0; i < 4; ++i) use();
    mine_ = get();
    thread(
        "owner", [this] { put(mine_); }, 0);
    thread(
        "getter", [this] { use(); }, 2);
    thread(
        "keeper", [] { keep(); }, 1);
  }

 private:
  object* mine_ = nullptr;
};

TEST(ObjectCacheSchedTest, TheKeeperHidesNoObjectFromAGetter) { expect_no_failure<kept>(); }

TEST(ObjectCacheSchedTest, AKeeperThatHoldsPutsWithoutCollectingIsCaught) {
  EXPECT_TRUE(mutant_is_killed<kept>(base::mutant::round_holds_pushes, search(in_sequences)));
}

// Rounds beside users, and then until it is at rest.
class rested : public cache_scenario {
 public:
  rested() : cache_scenario(2) {
    use();
    thread(
        "user", [this] { use(); }, 0);
    thread(
        "keeper",
        [] {
          keep();
          keep();
        },
        1);
  }

 protected:
  void check() override {
    for (int round = 0; round < 3; ++round) keep();
    const raw_cache::statistics now = cache.stats();
    require(now.objects_built == 0 && now.objects_cached == 0, "an idle cache keeps %llu objects",
            static_cast<unsigned long long>(now.objects_built));
    use();
    cache.audit();
  }
};

// KF-11, KF-46
TEST(ObjectCacheSchedTest, AnIdleCacheComesToRestAndAnUsedOneStaysAwake) { expect_no_failure<rested>(); }

TEST(ObjectCacheSchedTest, ACacheAtRestWithOpenArraysIsCaught) {
  EXPECT_TRUE(mutant_is_killed<rested>(base::mutant::rest_without_closing, search(in_sequences)));
}

// What a user writes below its record stays as long as it has the object, whoever gives free objects' pages back.
class scratched : public cache_scenario {
 public:
  scratched() : cache_scenario(3, 2 * page_size, 0, true) {
    std::array<object*, 3> all{};
    for (object*& each : all) {
      each = get();
      scratch_of(each) = 1;
    }
    mine_ = all[0];
    put(all[1]);
    put(all[2]);
    thread(
        "user", [this] { use_scratch(); }, 0);
    thread(
        "neighbour", [this] { use_scratch(); }, 1);
    thread(
        "keeper",
        [this] {
          keep();
          cache.trim();
        },
        2);
  }
  void audit() override {
    require(scratch_of(mine_) == 1, "the scratch of an object that was out all the time is gone");
    put(mine_);
    cache_scenario::audit();
  }

 private:
  static base::atomic<std::uint64_t>& scratch_of(object* of) {
    return *reinterpret_cast<base::atomic<std::uint64_t>*>(reinterpret_cast<char*>(of) + page_size);
  }
  void use_scratch() {
    object* mine = get();
    scratch_of(mine) = 2;
    require(scratch_of(mine) == 2, "scratch is given back while its object is out");
    put(mine);
  }
  object* mine_ = nullptr;
};

TEST(ObjectCacheSchedTest, ScratchStaysWhileItsObjectIsOut) { expect_no_failure<scratched>(); }

TEST(ObjectCacheSchedTest, ScratchOfAnybodyGivenBackIsCaught) {
  EXPECT_TRUE(mutant_is_killed<scratched>(base::mutant::scratch_of_anybody, {.system = in_sequences}));
}

// An array has room for one object of this size: what one CPU puts and another gets passes through the depot.
class passing : public cache_scenario {
 public:
  passing() : cache_scenario(3, 40'000) {
    for (object*& each : objects_) each = get();
    thread(
        "producer",
        [this] {
          for (object* each : objects_) put(each);
        },
        0);
    thread(
        "consumer",
        [this] {
          for (int i = 0; i < 2; ++i) taken_[i] = get();
          for (object* each : taken_) put(each);
        },
        1);
    thread(
        "keeper", [] { keep(); }, 2);
  }

 private:
  std::array<object*, 3> objects_{};
  object* taken_[2]{};
};

TEST(ObjectCacheSchedTest, WhatPassesThroughTheDepotArrives) { expect_no_failure<passing>(); }

// A budget with room for one slab of one of two caches: the getter of one needs what the other keeps.
class one_budget : public cache_scenario {
 public:
  one_budget() : cache_scenario(1, 40'000) {
    use();
    // Both structures, both arrays' pages, one slab.
    raw_cache::options chosen;
    chosen.size = 40'000;
    chosen.budget = &budget;
    other_ = *raw_cache::create("other", chosen);
    filler_ = budget.limit() - budget.used() - bytes{page_size};
    require(budget.try_charge(filler_), "the budget has no room to be filled");
    // What is put after the other's reclaim stays until the keeper comes: an idle cache rests after two periods.
    thread(
        "user",
        [this] {
          use();
          rest();
        },
        0);
    thread(
        "stranger",
        [this] {
          const result<void*> given = other_->get();
          require(static_cast<bool>(given), "get failed");
          other_->put(*given);
          rest();
        },
        1);
  }
  void audit() override {
    other_->audit();
    other_->trim();
    cache_scenario::audit();
    budget.release(filler_);
  }

 private:
  static void rest() {
    for (int round = 0; round < 3; ++round) keep();
  }

  std::unique_ptr<raw_cache> other_;
  bytes filler_;
};

// KF-47
TEST(ObjectCacheSchedTest, AGetterWithoutMemoryIsGivenWhatAnotherCacheKeeps) { expect_no_failure<one_budget>(); }

}  // namespace
}  // namespace larder::sched

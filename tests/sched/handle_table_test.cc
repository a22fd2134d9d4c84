// SPDX-License-Identifier: Apache-2.0
//
// The handle table's protocol (src/handle/table_state.cc, free_list.h): with restartable sequences, and without. Tables
// of one or two entries, so that every thread wants what another has.
#include <array>

#include <gtest/gtest.h>

#include <larder/handle_table.h>

#include "base/atomic.h"
#include "base/schedule.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

constexpr system_settings in_sequences{.cpus = 3, .sequences = os::sequence_mode::concurrency_id};
// The same where a store may reach other CPUs late, as on x86.
constexpr system_settings with_late_stores{
    .store_delays = 1, .cpus = 3, .sequences = os::sequence_mode::concurrency_id};
constexpr system_settings sharded{.cpus = 3, .sequences = os::sequence_mode::sharded};
// A delay is one more choice at every store: searched in part only, and at random.
constexpr search_options late_stores{
    .preemptions = 2, .schedules_max = 20'000, .random_schedules = 20'000, .system = with_late_stores};

struct object {
  handle named;
  unsigned released = 0;
};

// A table on a budget of its own; at the end the laws hold, and the entries are those that the test says.
class table_scenario : public scenario {
 public:
  void audit() override {
    table.audit();
    check();
    table.for_each([this](handle which, object& seen) {
      require(table.find(which) == &seen, "for_each shows what find does not");
    });
  }

 protected:
  explicit table_scenario(std::size_t limit)
      : table("scheduled", {.limit = limit, .budget = &budget, .released = &release, .context = nullptr}) {}
  virtual void check() {}

  static void release(void*, void* released) { ++static_cast<object*>(released)->released; }

  // Inserts, and finds it again.
  bool insert(object& inserted) {
    inserted.named = table.insert(&inserted);
    if (!inserted.named) return false;
    require(table.find(inserted.named) == &inserted, "what was inserted is not found");
    return true;
  }

  memory_budget budget{"scheduled", {}};
  handle_table<object> table;
  std::array<object, 4> objects;
};

// Two threads of one CPU and a thief on another want the three entries that the first CPU's list has; one gives back.
class thief : public table_scenario {
 public:
  thief() : table_scenario(3) {
    for (int i = 0; i < 3; ++i) insert(objects[static_cast<std::size_t>(i)]);
    for (int i = 0; i < 3; ++i) table.erase(objects[static_cast<std::size_t>(i)].named);
    thread(
        "owner",
        [this] {
          got_[0] = insert(objects[0]);
          if (got_[0]) {
            require(table.erase(objects[0].named), "an entry is not there to be erased");
            got_[0] = insert(objects[0]);
          }
        },
        0);
    thread(
        "neighbour", [this] { got_[1] = insert(objects[1]); }, 0);
    thread(
        "thief", [this] { got_[2] = insert(objects[2]); }, 1);
  }

 protected:
  void check() override {
    // KF-25: there are as many entries as threads.
    for (unsigned i = 0; i < 3; ++i) require(got_[i], "insert %u failed below the limit", i);
    require(table.size() == 3, "%zu entries of three", table.size());
  }

 private:
  std::array<bool, 3> got_{};
};

TEST(HandleTableSchedTest, NoEntryIsOutTwiceWhileAThiefIsAtWork) {
  EXPECT_TRUE(no_schedule_fails<thief>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<thief>(late_stores));
  EXPECT_TRUE(no_schedule_fails<thief>({.preemptions = 2, .system = sharded}));
}

// KF-21: two consumers of one list that do not exclude each other.
TEST(HandleTableSchedTest, AThiefThatDoesNotFenceIsCaught) {
  EXPECT_TRUE(mutant_is_killed<thief>(base::mutant::steal_without_fence, {.system = in_sequences}));
}

TEST(HandleTableSchedTest, AThiefThatDoesNotCloseIsCaught) {
  EXPECT_TRUE(mutant_is_killed<thief>(base::mutant::steal_without_closing, {.system = in_sequences}));
}

TEST(HandleTableSchedTest, ASequenceThatIgnoresItsGateIsCaught) {
  EXPECT_TRUE(mutant_is_killed<thief>(base::mutant::gate_ignored, {.system = in_sequences}));
}

// KF-22: entries that the thief took, but that stay on the owner's list.
TEST(HandleTableSchedTest, AShareThatStaysWhereItWasIsCaught) {
  EXPECT_TRUE(mutant_is_killed<thief>(base::mutant::stolen_share_kept, {.system = in_sequences}));
  EXPECT_TRUE(mutant_is_killed<thief>(base::mutant::stolen_share_kept, {.system = sharded}));
}

// The first CPU frees its entry before the second takes its own: one of the two is free at every instant, so the third
// must get it.
class full_table : public table_scenario {
 public:
  full_table() : table_scenario(2) {
    insert(objects[0]);
    move_to_cpu(1);
    insert(objects[1]);
    table.erase(objects[1].named);
    move_to_cpu(0);
    thread(
        "first",
        [this] {
          require(table.erase(objects[0].named), "an entry is not there to be erased");
          erased_.store(true);
        },
        0);
    thread(
        "second",
        [this] {
          while (!erased_.load()) base::schedule::yield();
          require(insert(objects[1]), "insert failed below the limit");
        },
        1);
    thread(
        "third", [this] { require(insert(objects[3]), "insert failed below the limit"); }, 2);
  }

 private:
  base::atomic<bool> erased_{false};
};

// KF-25
TEST(HandleTableSchedTest, InsertDoesNotFailWhileAnEntryIsFreeSomewhere) {
  EXPECT_TRUE(no_schedule_fails<full_table>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<full_table>(late_stores));
  EXPECT_TRUE(no_schedule_fails<full_table>({.preemptions = 2, .system = sharded}));
}

TEST(HandleTableSchedTest, FailingAfterALookThatMissedWhatMovedIsCaught) {
  EXPECT_TRUE(mutant_is_killed<full_table>(base::mutant::fail_after_one_look, {.system = in_sequences}));
}

// Two CPUs free entries of a third, which wants them.
class senders : public table_scenario {
 public:
  senders() : table_scenario(2) {
    insert(objects[0]);
    insert(objects[1]);
    for (unsigned i = 0; i < 2; ++i) {
      thread(
          i == 0 ? "sender" : "other sender",
          [this, i] { require(table.erase(objects[i].named), "an entry is not there to be erased"); }, i + 1);
    }
    thread(
        "owner",
        [this] {
          for (int i = 0; i < 2; ++i) insert(objects[2]);
        },
        0);
  }
};

// KF-23
TEST(HandleTableSchedTest, APlaceThatIsTakenButNotFilledIsPassedOver) {
  EXPECT_TRUE(no_schedule_fails<senders>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<senders>(late_stores));
  EXPECT_TRUE(no_schedule_fails<senders>({.preemptions = 2, .system = sharded}));
}

TEST(HandleTableSchedTest, LeavingAPlaceBeforeItIsFilledIsCaught) {
  EXPECT_TRUE(mutant_is_killed<senders>(base::mutant::gap_forgotten, {.system = in_sequences}));
}

// Three erase one entry; the list of its owner becomes shared, and biased again, while they do.
class erasers : public table_scenario {
 public:
  erasers() : table_scenario(3) {
    for (unsigned i = 0; i < 3; ++i) insert(objects[i]);
    thread(
        "owner",
        [this] {
          wins_ += table.erase(objects[0].named) ? 1U : 0U;
          require(table.erase(objects[1].named), "an entry is not there to be erased");
          require(table.erase(objects[2].named), "an entry is not there to be erased");
        },
        0);
    thread(
        "neighbour", [this] { wins_ += table.erase(objects[0].named) ? 1U : 0U; }, 0);
    thread(
        "stranger", [this] { wins_ += table.erase(objects[0].named) ? 1U : 0U; }, 1);
  }

 protected:
  void check() override {
    require(wins_ == 1, "%u threads erased one entry", wins_);
    for (unsigned i = 0; i < 3; ++i) require(objects[i].released == 1, "released %u times", objects[i].released);
    require(table.size() == 0, "%zu entries are left", table.size());
  }

 private:
  unsigned wins_ = 0;
};

// KF-27
TEST(HandleTableSchedTest, OfSeveralErasersOneWins) {
  EXPECT_TRUE(no_schedule_fails<erasers>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<erasers>(late_stores));
  EXPECT_TRUE(no_schedule_fails<erasers>({.preemptions = 2, .system = sharded}));
}

TEST(HandleTableSchedTest, SharingAListWithoutAFenceIsCaught) {
  EXPECT_TRUE(mutant_is_killed<erasers>(base::mutant::share_without_fence, {.system = in_sequences}));
}

// The owner changes its shared entries alone until they are its own again, while a stranger erases one of them.
class bias : public table_scenario {
 public:
  bias() : table_scenario(3) {
    for (unsigned i = 0; i < 3; ++i) insert(objects[i]);
    thread(
        "stranger",
        [this] {
          require(table.erase(objects[1].named), "an entry is not there to be erased");
          wins_ += table.erase(objects[0].named) ? 1U : 0U;
        },
        1);
    thread(
        "owner",
        [this] {
          for (int i = 0; i < 2; ++i) {
            const pinned<object> held = table.find_pinned(objects[2].named);
            require(held.get() == &objects[2], "an entry is not there to be pinned");
          }
          wins_ += table.erase(objects[0].named) ? 1U : 0U;
        },
        0);
  }

 protected:
  void check() override { require(wins_ == 1, "%u threads erased one entry", wins_); }

 private:
  unsigned wins_ = 0;
};

TEST(HandleTableSchedTest, AListThatIsBiasedAgainHasOneWinnerToo) {
  EXPECT_TRUE(no_schedule_fails<bias>({.preemptions = 3, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<bias>(late_stores));
}

TEST(HandleTableSchedTest, BiasingAListWithoutAFenceIsCaught) {
  EXPECT_TRUE(mutant_is_killed<bias>(base::mutant::bias_without_fence, {.preemptions = 3, .system = in_sequences}));
}

// One pins, one erases, one takes what the other may have erased.
class pins : public table_scenario {
 public:
  pins() : table_scenario(2) {
    insert(objects[0]);
    thread(
        "pinner",
        [this] {
          const pinned<object> held = table.find_pinned(objects[0].named);
          if (held) require(held->released == 0 && !taken_, "an object was released while it was pinned");
          if (held) require(held->released == 0 && !taken_, "an object was released while it was pinned");
        },
        1);
    thread(
        "taker",
        [this] {
          object* mine = table.take(objects[0].named);
          require(mine == nullptr || mine == &objects[0], "took another's object");
          taken_ = mine != nullptr;
        },
        0);
    thread(
        "eraser", [this] { erased_ = table.erase(objects[0].named); }, 2);
  }

 protected:
  void check() override {
    require(taken_ != erased_, "%d took and %d erased one entry", taken_, erased_);
    require(objects[0].released == (erased_ ? 1U : 0U), "released %u times", objects[0].released);
    require(table.size() == 0, "%zu entries are left", table.size());
  }

 private:
  bool taken_ = false;
  bool erased_ = false;
};

TEST(HandleTableSchedTest, NothingIsReleasedOrTakenWhileItIsPinned) {
  EXPECT_TRUE(no_schedule_fails<pins>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<pins>(late_stores));
  EXPECT_TRUE(no_schedule_fails<pins>({.preemptions = 2, .system = sharded}));
}

TEST(HandleTableSchedTest, ATakerThatIsNotWokenIsCaught) {
  EXPECT_TRUE(mutant_is_killed<pins>(base::mutant::unpin_without_wake, {.system = in_sequences}));
}

// An entry changes its user while two look.
class readers : public table_scenario {
 public:
  readers() : table_scenario(1) {
    insert(objects[0]);
    thread(
        "writer",
        [this] {
          require(table.erase(objects[0].named), "an entry is not there to be erased");
          insert(objects[1]);
        },
        0);
    thread(
        "reader",
        [this] {
          object* seen = table.find(objects[0].named);
          require(seen == nullptr || seen == &objects[0], "found the object of the entry's next user");
        },
        1);
    thread(
        "walker",
        [this] {
          table.for_each([this](handle which, object& seen) {
            require((which == objects[0].named) == (&seen == &objects[0]), "a walk saw another's object");
          });
        },
        2);
  }
};

// KF-24
TEST(HandleTableSchedTest, WhoeverFindsAnEntryFindsItsOwnObject) {
  EXPECT_TRUE(no_schedule_fails<readers>({.preemptions = 3, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<readers>(late_stores));
  EXPECT_TRUE(no_schedule_fails<readers>({.preemptions = 3, .system = sharded}));
}

TEST(HandleTableSchedTest, PublishingAnEntryBeforeItsObjectIsCaught) {
  EXPECT_TRUE(mutant_is_killed<readers>(base::mutant::word_before_object, {.system = in_sequences}));
}

// The only frame goes and comes back.
class shrinking : public table_scenario {
 public:
  shrinking() : table_scenario(2) {
    insert(objects[0]);
    table.erase(objects[0].named);
    stale_ = objects[0].named;
    thread(
        "shrinker", [this] { table.shrink(); }, 0);
    thread(
        "user",
        [this] {
          require(insert(objects[1]), "insert failed below the limit");
          require(objects[1].named != stale_, "a handle came again");
          require(table.erase(objects[1].named), "an entry is not there to be erased");
        },
        1);
    thread(
        "stranger",
        [this] { require(table.find(stale_) == nullptr && !table.erase(stale_), "a stale handle found something"); },
        2);
  }

 protected:
  void check() override {
    require(table.size() == 0, "%zu entries are left", table.size());
    table.shrink();
    require(table.stats().frames == 0, "an empty frame was kept");
    require(budget.used() == table.stats().charged, "charged is not what is there");
  }

 private:
  handle stale_;
};

// KF-28
TEST(HandleTableSchedTest, ShrinkingTakesNothingThatIsUsed) {
  EXPECT_TRUE(no_schedule_fails<shrinking>({.preemptions = 2, .system = in_sequences}));
  EXPECT_TRUE(no_schedule_fails<shrinking>(late_stores));
  EXPECT_TRUE(no_schedule_fails<shrinking>({.preemptions = 2, .system = sharded}));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// The end of a task beside what its handle does: joins it, is destroyed, or leaves it to itself. What the two share
// comes from a cache of one object, and must be back there once.
#include <gtest/gtest.h>

#include <larder/object_cache.h>

#include "os/parker.h"
#include "task/completion.h"
#include "tests/sched/deaf_parker.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using base::mutant;
using task_layer::completion;

// A put has many steps of its own.
constexpr search_options search{
    .preemptions = 2, .schedules_max = 20'000, .system = {.cpus = 3, .sequences = os::sequence_mode::sharded}};

enum class way { join, destroy, detach };

template <way Handle>
class handle_beside_end : public scenario {
 public:
  handle_beside_end() : shared_(cache_.get()) {
    require(shared_ != nullptr, "no memory");
    shared_->begin(&cache_, task_, nullptr);
    thread("handle", [this] {
      if (Handle == way::detach) {
        shared_->detach();
        return;
      }
      shared_->wait(Handle == way::join);
      require(shared_->ended(), "a wait returned before the end");
      require(result_ == 7, "what the task wrote is not seen");
      shared_->release();
    });
    thread("task", [this] {
      result_ = 7;
      shared_->finish();
    });
  }
  void audit() override {
    const completion* again = cache_.try_get();
    require(again != nullptr, "nobody has given it back");
    require(cache_.try_get() == nullptr, "it was given back twice");
    cache_.put(shared_);
    cache_.audit();
  }

 private:
  object_cache<completion> cache_{"completions", {.limit = 1}};
  completion* const shared_;
  deaf_parker task_;
  base::passive_atomic<int> result_{0};
};

TEST(JoinSchedTest, AJoinSeesTheEndAndGivesBack) {
  EXPECT_TRUE(has_no_failure(explore<handle_beside_end<way::join>>(search)));
}

TEST(JoinSchedTest, AHandleIsDestroyedBesideTheEnd) {
  EXPECT_TRUE(has_no_failure(explore<handle_beside_end<way::destroy>>(search)));
}

TEST(JoinSchedTest, AHandleDetachesBesideTheEnd) {
  EXPECT_TRUE(has_no_failure(explore<handle_beside_end<way::detach>>(search)));
}

TEST(JoinSchedTest, AnEndThatDoesNotLookAgainForWhoWaitsIsCaught) {
  EXPECT_TRUE(mutant_is_killed<handle_beside_end<way::join>>(mutant::end_told_blindly, search));
}

TEST(JoinSchedTest, ADetachThatDoesNotLookAgainForTheEndIsCaught) {
  EXPECT_TRUE(mutant_is_killed<handle_beside_end<way::detach>>(mutant::detach_blindly, search));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// Callers and helpers: simulated threads take the place of those that the pool would start.
#include "task/helper_pool.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>

#include <gtest/gtest.h>

#include "base/yield.h"
#include "os/parker.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using namespace std::chrono_literals;
using base::mutant;

// Two callers, and room for two helpers, at once or one after the other: idle ones may end at any time.
class callers_and_helpers : public scenario {
 public:
  explicit callers_and_helpers(unsigned helpers_max = 2, unsigned threads = 2)
      : helper_threads_(threads), pool_(*this, helpers_max) {
    for (std::size_t i = 0; i < 2; ++i) {
      thread(i == 0 ? "caller" : "other caller", [this, i] {
        for (unsigned round = 0; round < rounds_; ++round) {
          const auto made =
              pool_.call([](void* count) { ++*static_cast<base::passive_atomic<unsigned>*>(count); }, &made_[i]);
          if (!made) ++refused_;
        }
        if (--callers_ == 0) pool_.end_all();
      });
    }
    for (unsigned i = 0; i < threads; ++i) {
      thread("helper", [this, i] { pool_.run_helper(i); });
    }
  }
  void audit() override {
    require(made_[0] + made_[1] + refused_ == 2 * rounds_, "%u calls were made and %u refused of %u",
            made_[0] + made_[1], refused_.load(), 2 * rounds_);
    require(pool_.helpers() == 0, "%zu helpers are left", pool_.helpers());
  }

 protected:
  class pool final : public task_layer::helper_pool {
   public:
    pool(callers_and_helpers& all, unsigned helpers_max) : helper_pool("scheduled", helpers_max, 1h), all_(all) {}
    ~pool() override { end(); }

    void run_helper(unsigned which) {
      place& mine = places_[which];
      while (mine.filled == empty) {
        os::parker& self = os::parker::current();
        mine.parker = &self;
        if (mine.filled == empty) self.park();
      }
      if (mine.filled == filled) serve(*mine.one);
    }
    // Those that were not started end too.
    void end_all() {
      end();
      for (place& each : places_) {
        unsigned seen = empty;
        if (each.filled.compare_exchange_strong(seen, over) && each.parker != nullptr) each.parker.load()->unpark();
      }
    }

   private:
    enum : unsigned { empty, filled, over };
    struct place {
      base::atomic<unsigned> filled{empty};
      base::atomic<os::parker*> parker{nullptr};
      helper* one = nullptr;
    };

    result<void> start(helper& one) override {
      const unsigned which = next_++;
      if (which >= all_.helper_threads_) return error_from(EAGAIN);
      places_[which].one = &one;
      places_[which].filled = filled;
      if (os::parker* parker = places_[which].parker; parker != nullptr) parker->unpark();
      return {};
    }
    void join(helper&) override {}

    callers_and_helpers& all_;
    base::passive_atomic<unsigned> next_{0};
    std::array<place, 2> places_;
  };

  unsigned rounds_ = 1;
  const unsigned helper_threads_;  // what the system has room for
  pool pool_;
  std::array<base::passive_atomic<unsigned>, 2> made_{};
  base::passive_atomic<unsigned> refused_{0};
  base::atomic<int> callers_{2};
};

TEST(HelperPoolSchedTest, EachCallIsMadeOnce) {
  const search_report report = explore<callers_and_helpers>({.preemptions = 0});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

// One after the other: by one helper, or by two if the first has ended between them.
class one_helper : public callers_and_helpers {
 public:
  one_helper() : callers_and_helpers(1) {}
};

TEST(HelperPoolSchedTest, CallsWaitForTheOnlyHelper) {
  const search_report report = explore<one_helper>({.preemptions = 1});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(HelperPoolSchedTest, AHelperThatEndsWithACallIsCaught) {
  EXPECT_TRUE(mutant_is_killed<one_helper>(mutant::helper_drops_call));
}

// No helper can be started: every call is refused, also the one that waits for the only helper.
class no_helper : public callers_and_helpers {
 public:
  no_helper() : callers_and_helpers(1, 0) {}
  void audit() override {
    callers_and_helpers::audit();
    require(refused_ == 2, "%u of 2 calls were refused", refused_.load());
  }
};

TEST(HelperPoolSchedTest, WithoutAnyHelperEachCallIsRefused) {
  const search_report report = explore<no_helper>({.preemptions = 2});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(HelperPoolSchedTest, AFailureThatIsToldToOneIsCaught) {
  EXPECT_TRUE(mutant_is_killed<no_helper>(mutant::failure_told_to_one));
}

}  // namespace
}  // namespace larder::sched

// SPDX-License-Identifier: Apache-2.0
//
// Seeded random sequences of operations on a cache beside a model of it (the set of objects that are out), with the
// audit after each step (KF-12), over slabs of 1, 2 and many objects, with and without reservation, limit, a small
// budget and failing constructors. What a sequence proves besides: exact pairs of constructor and destructor calls
// (KF-1), use after trim (KF-2), the limit and the reservation to the object (KF-9, KF-10, KF-20), and the budget's
// return to zero.
#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include <larder/raw_cache.h>

#include "cache/object_census_test.h"

namespace larder {
namespace {

class cache_model {
 public:
  cache_model(memory_budget& budget, const raw_cache::options& chosen, object_census& census, std::uint64_t seed)
      : budget_(budget), census_(census), chosen_(chosen), cache_("model", chosen), random_(seed) {}

  ~cache_model() { put_some(out_.size()); }

  void step() {
    switch (pick(10)) {
      case 0:
      case 1:
      case 2:
        get_one();
        break;
      case 3:
      case 4:
        put_some(1);
        break;
      case 5:
        get_several(1 + pick(150));
        break;
      case 6:
        put_several(1 + pick(150));
        break;
      case 7:
        put_some(pick(out_.size() + 1));
        break;
      case 8:
        if (pick(4) == 0) cache_.trim(pick(2) == 0 ? unlimited : bytes{pick(100'000)});
        break;
      default:
        census_.fail_after(static_cast<std::int64_t>(pick(20)), pick(2) == 0);
        get_several(1 + pick(20));
        census_.fail_after(-1);
    }
    check();
  }

 private:
  std::size_t pick(std::size_t below) { return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_); }

  void add(void* object) {
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(object) % chosen_.alignment, 0U);
    ASSERT_EQ(std::count(out_.begin(), out_.end(), object), 0) << "handed out twice";
    census_.check_contents(object);
    out_.push_back(object);
  }
  // KF-10: below the reservation there is an object, whatever the budget and the constructor say.
  void expect_refusal_allowed() const { EXPECT_GE(out_.size(), chosen_.reservation); }

  void get_one() {
    void* object = cache_.try_get();
    if (object == nullptr) return expect_refusal_allowed();
    add(object);
  }
  void get_several(std::size_t count) {
    std::vector<void*> objects(count);
    const std::size_t got = cache_.get_many(objects.data(), count);
    for (std::size_t i = 0; i < got; ++i) add(objects[i]);
    if (got < count) expect_refusal_allowed();
  }
  void put_some(std::size_t count) {
    for (; count > 0 && !out_.empty(); --count) {
      std::swap(out_[pick(out_.size())], out_.back());
      cache_.put(out_.back());
      out_.pop_back();
    }
  }
  void put_several(std::size_t count) {
    count = std::min(count, out_.size());
    std::shuffle(out_.begin(), out_.end(), random_);
    cache_.put_many(out_.data() + (out_.size() - count), count);
    out_.resize(out_.size() - count);
  }

  void check() {
    cache_.audit();
    const raw_cache::statistics now = cache_.stats();
    ASSERT_EQ(now.objects_out, out_.size());
    ASSERT_EQ(now.objects_built, census_.built());
    ASSERT_EQ(now.constructed, census_.constructions());
    ASSERT_EQ(now.destroyed, census_.destructions());
    ASSERT_LE(now.objects_built, chosen_.limit);
    ASSERT_GE(now.objects_built, chosen_.reservation);
    ASSERT_EQ(now.charged, budget_.used());
  }

  memory_budget& budget_;
  object_census& census_;
  const raw_cache::options chosen_;
  raw_cache cache_;
  std::mt19937_64 random_;
  std::vector<void*> out_;
};

constexpr int steps_per_run = 300;

void run(std::size_t size, std::size_t alignment, std::size_t reservation, std::size_t limit, bytes budget_limit,
         std::uint64_t seed, debug_checks checks = debug_checks::none, int steps = steps_per_run) {
  SCOPED_TRACE(testing::Message() << "size " << size << ", alignment " << alignment << ", reservation " << reservation
                                  << ", limit " << limit << ", seed " << seed << ", checks "
                                  << static_cast<unsigned>(checks));
  memory_budget budget("model", {.limit = budget_limit});
  object_census census;
  {
    raw_cache::options chosen = census.options_for(size, budget);
    chosen.alignment = alignment;
    chosen.reservation = reservation;
    chosen.limit = limit;
    chosen.debug = checks;
    cache_model model(budget, chosen, census, seed);
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) model.step();
  }
  EXPECT_EQ(census.built(), 0U);
  EXPECT_EQ(budget.used(), bytes{});
}

class RawCacheModelTest : public testing::TestWithParam<std::size_t> {};

TEST_P(RawCacheModelTest, LawsHoldAfterEachStepWithoutLimits) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 0, raw_cache::no_limit, unlimited, seed);
}

TEST_P(RawCacheModelTest, LawsHoldAfterEachStepWithReservationAndLimit) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 5, 40, unlimited, seed);
}

TEST_P(RawCacheModelTest, ReservationThatIsTheLimitIsServedWhole) {
  for (const std::size_t both : {1U, 3U, 100U}) run(GetParam(), 8, both, both, unlimited, both);
}

TEST_P(RawCacheModelTest, LawsHoldInABudgetThatIsOftenFull) {
  const bytes room = round_up_to_pages(bytes{GetParam() * 20}) + 64_KiB;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) run(GetParam(), 8, 2, raw_cache::no_limit, room, seed);
}

TEST_P(RawCacheModelTest, EveryAlignmentUpToAPageHolds) {
  for (std::size_t alignment = 1; alignment <= page_size; alignment *= 4) {
    run(GetParam(), alignment, 1, 50, unlimited, alignment);
  }
}

// Clean use is silent in every combination of checks, and the laws hold with what they add to a slab.
TEST_P(RawCacheModelTest, LawsHoldWithEveryCombinationOfDebugChecks) {
  // Each audit looks at all memory: as many steps as take as long.
  const int steps = GetParam() > 100'000 ? 5 : 60;
  for (unsigned checks = 1; checks <= static_cast<unsigned>(debug_checks::all); ++checks) {
    run(GetParam(), 8, 3, 60, unlimited, checks, static_cast<debug_checks>(checks), steps);
    run(GetParam(), 256, 0, raw_cache::no_limit, round_up_to_pages(bytes{GetParam() * 20}) + 64_KiB, checks,
        static_cast<debug_checks>(checks), steps);
  }
}

// Slabs of many objects, of some, of one; around a page (KF-8); and far above.
INSTANTIATE_TEST_SUITE_P(Sizes, RawCacheModelTest,
                         testing::Values(1, 8, 24, 64, 512, 4000, 4056, 4064, 4072, 4096, 5000, 20'480, 65'536, 1 << 20,
                                         4 << 20));

}  // namespace
}  // namespace larder

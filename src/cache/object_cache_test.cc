// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <larder/object_cache.h>

#include "tests/support/one_cpu.h"

namespace larder {
namespace {

// Counts its instances, and is expensive to make: it owns a buffer that it keeps while it is cached.
struct request {
  request() : buffer(1000, 'x') {
    if (fail) throw std::runtime_error("no request");
    ++instances;
  }
  ~request() { --instances; }
  request(const request&) = delete;
  request& operator=(const request&) = delete;

  std::string buffer;
  int uses = 0;
  static inline int instances = 0;
  static inline bool fail = false;
};

struct resetting_traits {
  result<request*> construct(void* memory) const {
    if (*budgeted == 0) return error_from(EDQUOT);
    --*budgeted;
    return ::new (memory) request();
  }
  static void destroy(request& object) { object.~request(); }
  static void reset(request& object) { object.uses = 0; }

  int* budgeted;
};

class ObjectCacheTest : public testing::Test {
 protected:
  ~ObjectCacheTest() override {
    EXPECT_EQ(request::instances, 0);
    EXPECT_EQ(budget.used(), bytes{});
  }
  memory_budget budget{"test"};
};

TEST_F(ObjectCacheTest, ObjectsKeepTheirConstructedState) {
  const tests::stays_on_one_cpu pinned;
  object_cache<request> requests("requests", {.reservation = 4, .limit = 100, .budget = &budget});
  EXPECT_EQ(request::instances, 4);
  request* r = requests.get();
  ++r->uses;
  const char* buffer = r->buffer.data();
  requests.put(r);
  request* again = requests.try_get();
  ASSERT_EQ(again, r);
  EXPECT_EQ(again->uses, 1);
  EXPECT_EQ(again->buffer.data(), buffer);
  requests.put(again);
  requests.audit();
  EXPECT_EQ(requests.name(), "requests");
  EXPECT_EQ(requests.active_mode().name, raw_cache("other", {.size = 8}).active_mode().name);
}

TEST_F(ObjectCacheTest, AcquirePutsBackByItself) {
  object_cache<request> requests("requests", {.limit = 1, .budget = &budget});
  {
    const auto owned = requests.acquire();
    ASSERT_TRUE(owned);
    EXPECT_EQ(requests.stats().objects_out, 1U);
    EXPECT_FALSE(requests.try_acquire());
  }
  EXPECT_EQ(requests.stats().objects_out, 0U);
}

TEST_F(ObjectCacheTest, GetWithADeadlineSaysWhyThereIsNone) {
  object_cache<request> requests("requests", {.limit = 1, .budget = &budget});
  const auto owned = requests.acquire();
  EXPECT_EQ(requests.get(time_point{}).error(), error_from(ETIMEDOUT));
}

TEST_F(ObjectCacheTest, ManyAtOnce) {
  object_cache<request> requests("requests", {.limit = 250, .budget = &budget});
  std::vector<request*> some(300);
  ASSERT_EQ(requests.get_many(some.data(), some.size()), 250U);
  EXPECT_EQ(request::instances, 250);
  requests.put_many(some.data(), 250);
  EXPECT_EQ(requests.stats().objects_out, 0U);
  requests.audit();
}

// KF-4
TEST_F(ObjectCacheTest, AThrowingConstructorPassesThroughGetAndIsNullForTryGet) {
  object_cache<request> requests("requests", {.budget = &budget});
  request::fail = true;
  EXPECT_THROW((void)requests.get(), std::runtime_error);
  EXPECT_THROW((void)requests.acquire(), std::runtime_error);
  EXPECT_EQ(requests.try_get(), nullptr);
  EXPECT_THROW(object_cache<request>("none", {.reservation = 1, .budget = &budget}), std::runtime_error);
  request::fail = false;
  requests.audit();
  const auto owned = requests.acquire();
  EXPECT_TRUE(owned);
}

TEST_F(ObjectCacheTest, TraitsBuildResetAndMayFail) {
  int budgeted = 2;
  object_cache<request, resetting_traits> requests("requests", {.budget = &budget}, resetting_traits{&budgeted});
  request* first = requests.get();
  request* second = requests.get();
  EXPECT_EQ(requests.get(), nullptr);
  EXPECT_EQ(requests.get(no_deadline).error(), error_from(EDQUOT));
  first->uses = 5;
  requests.put(first);
  EXPECT_EQ(requests.get(), first);
  EXPECT_EQ(first->uses, 0);
  requests.put(first);
  requests.put(second);
}

struct alignas(1024) aligned {
  char bytes[100];
};

TEST_F(ObjectCacheTest, AlignmentOfTheTypeHolds) {
  object_cache<aligned> objects("aligned", {.budget = &budget});
  const auto first = objects.acquire();
  const auto second = objects.acquire();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.get()) % 1024, 0U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(second.get()) % 1024, 0U);
}

TEST_F(ObjectCacheTest, TrimDestroysWhatIsFree) {
  object_cache<request> requests("requests", {.budget = &budget});
  requests.put(requests.get());
  EXPECT_EQ(request::instances, 1);
  EXPECT_GT(requests.trim(), bytes{});
  EXPECT_EQ(request::instances, 0);
}

TEST_F(ObjectCacheTest, WithoutMemoryForItsReservationItThrows) {
  memory_budget small("small", {.limit = 4_KiB}, &budget);
  EXPECT_THROW(object_cache<request>("large", {.reservation = 1000, .budget = &small}), std::bad_alloc);
}

}  // namespace
}  // namespace larder

// SPDX-License-Identifier: Apache-2.0
// Caches within budgets, and threads that wait for each other's objects.
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdlib.h>

#include <larder/larder.h>

#include "check.h"

enum { object_size = 1000, limit_bytes = 512 << 10 };

static larder_budget* make_budget(uint64_t limit, larder_budget* parent) {
  const larder_budget_options options = {.struct_size = sizeof options, .limit_bytes = limit, .parent = parent};
  larder_budget* budget = larder_budget_create("c", &options);
  CHECK(budget != NULL);
  return budget;
}

static larder_cache* make_cache(larder_budget* budget, size_t limit) {
  const larder_cache_options options = {
      .struct_size = sizeof options, .object_size = object_size, .limit = limit, .budget = budget};
  larder_cache* cache = larder_cache_create("c", &options);
  CHECK(cache != NULL);
  return cache;
}

static void a_budget_is_never_exceeded_and_comes_back_to_zero(void) {
  larder_budget* whole = make_budget(2 * limit_bytes, NULL);
  larder_budget* part = make_budget(limit_bytes, whole);
  CHECK(larder_budget_limit(part) == limit_bytes && larder_budget_used(part) == 0);
  larder_cache* cache = make_cache(part, 0);
  void* objects[limit_bytes / object_size + 1];
  size_t count = 0;
  while ((objects[count] = larder_cache_try_alloc(cache)) != NULL) ++count;
  CHECK(errno == EAGAIN);
  CHECK(count > limit_bytes / object_size / 2);
  CHECK(larder_budget_used(part) <= limit_bytes && larder_budget_used(part) == larder_budget_used(whole));
  CHECK_FAILS(larder_cache_alloc_timeout(cache, 1000000), ETIMEDOUT);
  CHECK(larder_budget_destroy(part) == EBUSY);
  while (count > 0) CHECK(larder_cache_free(cache, objects[--count]) == 0);
  CHECK(larder_cache_reap(cache, UINT64_MAX) > limit_bytes / 2);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(larder_budget_used(part) == 0 && larder_budget_peak(part) <= limit_bytes);
  CHECK(larder_budget_peak(part) > limit_bytes / 2);
  CHECK(larder_budget_destroy(whole) == EBUSY);  // it has a child
  CHECK(larder_budget_destroy(part) == 0);
  CHECK(larder_budget_destroy(whole) == 0);
}

static void what_can_never_fit_fails_at_once(void) {
  larder_budget* budget = make_budget(64 << 10, NULL);
  larder_cache_options options = {.struct_size = sizeof options, .object_size = 1 << 20, .budget = budget};
  larder_cache* cache = larder_cache_create("hopeless", &options);
  CHECK(cache != NULL);
  CHECK_FAILS(larder_cache_alloc(cache), ENOMEM);
  CHECK(larder_cache_destroy(cache) == 0);
  options.reservation = 1;
  CHECK_FAILS(larder_cache_create("hopeless", &options), ENOMEM);
  CHECK(larder_budget_destroy(budget) == 0);
}

static void the_process_has_a_budget_that_stays(void) {
  larder_budget* process = larder_budget_process();
  CHECK(process != NULL && process == larder_budget_process());
  const uint64_t before = larder_budget_used(process);
  larder_cache* cache = make_cache(NULL, 0);
  CHECK(larder_budget_used(process) > before);
  larder_budget* child = make_budget(limit_bytes, process);
  CHECK(larder_budget_destroy(process) == EBUSY);
  CHECK(larder_budget_destroy(child) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(larder_budget_used(process) == before);
  CHECK(larder_budget_destroy(process) == EBUSY);
  CHECK(larder_budget_limit(process) == 64 << 20);
}

static void* take_one(void* cache) { return larder_cache_alloc(cache); }

static void an_alloc_waits_for_an_object_of_another_thread(void) {
  larder_cache* cache = make_cache(NULL, 1);
  void* only = larder_cache_alloc(cache);
  CHECK(only != NULL);
  pthread_t waiter;
  CHECK(pthread_create(&waiter, NULL, take_one, cache) == 0);
  larder_cache_statistics now = {.struct_size = sizeof now};
  do {
    CHECK(larder_cache_stats(cache, &now) == 0);
  } while (now.waiting == 0);
  CHECK(larder_cache_destroy(cache) == EBUSY);
  CHECK(larder_cache_free(cache, only) == 0);
  void* taken;
  CHECK(pthread_join(waiter, &taken) == 0);
  CHECK(taken == only);
  CHECK(larder_cache_free(cache, taken) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
}

static void* take_and_free(void* cache) {
  enum { rounds = 20000, held_max = 30 };
  void* held[held_max];
  size_t count = 0;
  for (int i = 0; i < rounds; ++i) {
    if (count < held_max && i % 7 != 0) {
      void* object = larder_cache_try_alloc(cache);
      if (object != NULL) held[count++] = object;
    } else if (count > 0) {
      CHECK(larder_cache_free(cache, held[--count]) == 0);
    }
  }
  while (count > 0) CHECK(larder_cache_free(cache, held[--count]) == 0);
  return NULL;
}

static void threads_share_a_cache(void) {
  larder_budget* budget = make_budget(limit_bytes, NULL);
  larder_cache* cache = make_cache(budget, 0);
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) CHECK(pthread_create(&threads[i], NULL, take_and_free, cache) == 0);
  for (int i = 0; i < 4; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
  CHECK(larder_cache_audit(cache) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(larder_budget_destroy(budget) == 0);
}

int main(void) {
  CHECK(setenv("LARDER_MEMORY_LIMIT", "64M", 1) == 0);
  a_budget_is_never_exceeded_and_comes_back_to_zero();
  what_can_never_fit_fails_at_once();
  the_process_has_a_budget_that_stays();
  an_alloc_waits_for_an_object_of_another_thread();
  threads_share_a_cache();
  return 0;
}

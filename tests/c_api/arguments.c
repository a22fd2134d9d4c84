// SPDX-License-Identifier: Apache-2.0
// What is refused, and how structs of another length than the library's are read and filled.
#include <string.h>

#include <larder/larder.h>

#include "check.h"

static const larder_cache_options good = {.struct_size = sizeof good, .object_size = 64};

static larder_cache* make(void) {
  larder_cache* cache = larder_cache_create("arguments", &good);
  CHECK(cache != NULL);
  return cache;
}

static void null_is_refused_everywhere(void) {
  const larder_budget_options options = {.struct_size = sizeof options};
  larder_cache_statistics now = {.struct_size = sizeof now};
  larder_cache* cache = make();
  CHECK_FAILS(larder_budget_create(NULL, &options), EINVAL);
  CHECK_FAILS(larder_budget_create("none", NULL), EINVAL);
  CHECK(larder_budget_destroy(NULL) == EINVAL);
  CHECK_FAILS(larder_budget_used(NULL), EINVAL);
  CHECK_FAILS(larder_budget_peak(NULL), EINVAL);
  CHECK_FAILS(larder_budget_limit(NULL), EINVAL);
  CHECK_FAILS(larder_cache_create(NULL, &good), EINVAL);
  CHECK_FAILS(larder_cache_create("none", NULL), EINVAL);
  CHECK(larder_cache_destroy(NULL) == EINVAL);
  CHECK_FAILS(larder_cache_alloc(NULL), EINVAL);
  CHECK_FAILS(larder_cache_alloc_timeout(NULL, 1), EINVAL);
  CHECK_FAILS(larder_cache_try_alloc(NULL), EINVAL);
  CHECK(larder_cache_free(NULL, &now) == EINVAL);
  CHECK(larder_cache_free(cache, NULL) == EINVAL);
  CHECK_FAILS(larder_cache_reap(NULL, 1), EINVAL);
  CHECK(larder_cache_stats(NULL, &now) == EINVAL);
  CHECK(larder_cache_stats(cache, NULL) == EINVAL);
  CHECK(larder_cache_audit(NULL) == EINVAL);
  CHECK_FAILS(larder_cache_name(NULL), EINVAL);
  CHECK_FAILS(larder_cache_active_mode(NULL), EINVAL);
  CHECK_FAILS(larder_cache_mode_reason(NULL), EINVAL);
  CHECK(larder_cache_destroy(cache) == 0);
}

static void options_that_make_no_sense_are_refused(void) {
  larder_cache_options options = good;
  options.object_size = 0;
  CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
  options.object_size = ((size_t)1 << 30) + 1;
  CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
  options = good;
  options.alignment = 24;
  CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
  options.alignment = 8192;
  CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
  options = good;
  options.limit = 3;
  options.reservation = 4;
  CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
  const larder_budget_options budget = {.struct_size = sizeof budget, .limit_bytes = 1000, .reserve_bytes = 1001};
  CHECK_FAILS(larder_budget_create("none", &budget), EINVAL);
}

static void sizes_that_are_too_small_or_not_set_are_refused(void) {
  larder_cache* cache = make();
  const size_t wrong[] = {0, sizeof(size_t), 79, (size_t)-1};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    larder_cache_options options = good;
    options.struct_size = wrong[i];
    CHECK_FAILS(larder_cache_create("none", &options), EINVAL);
    larder_cache_statistics now = {.struct_size = wrong[i]};
    CHECK(larder_cache_stats(cache, &now) == EINVAL);
  }
  larder_budget_options budget = {.struct_size = sizeof budget - 1};
  CHECK_FAILS(larder_budget_create("none", &budget), EINVAL);
  CHECK(larder_cache_destroy(cache) == 0);
}

// A program that was compiled with a later header runs, unless it asks for what this library does not have.
static void longer_options_are_taken_if_the_rest_is_zero(void) {
  struct {
    larder_cache_options known;
    uint64_t unknown;
  } longer = {.known = good, .unknown = 0};
  longer.known.struct_size = sizeof longer;
  larder_cache* cache = larder_cache_create("longer", &longer.known);
  CHECK(cache != NULL);
  CHECK(larder_cache_destroy(cache) == 0);
  longer.unknown = 1;
  CHECK_FAILS(larder_cache_create("longer", &longer.known), E2BIG);
}

// As a program with an earlier or later header passes them: nothing past its struct is written.
static void statistics_are_as_long_as_the_caller_says(void) {
  larder_cache* cache = make();
  void* object = larder_cache_alloc(cache);
  CHECK(object != NULL);
  unsigned char memory[sizeof(larder_cache_statistics) + 24] __attribute__((aligned(8)));
  larder_cache_statistics* now = (larder_cache_statistics*)memory;
  for (size_t length = 120; length <= sizeof memory; length += 8) {
    memset(memory, 0xee, sizeof memory);
    now->struct_size = length;
    CHECK(larder_cache_stats(cache, now) == 0);
    CHECK(now->struct_size == length && now->objects_out == 1 && now->allocs == 1);
    for (size_t at = sizeof *now; at < length; ++at) CHECK(memory[at] == 0);
    for (size_t at = length; at < sizeof memory; ++at) CHECK(memory[at] == 0xee);
  }
  CHECK(larder_cache_free(cache, object) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
}

int main(void) {
  null_is_refused_everywhere();
  options_that_make_no_sense_are_refused();
  sizes_that_are_too_small_or_not_set_are_refused();
  longer_options_are_taken_if_the_rest_is_zero();
  statistics_are_as_long_as_the_caller_says();
  return 0;
}

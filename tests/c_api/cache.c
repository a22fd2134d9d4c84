// SPDX-License-Identifier: Apache-2.0
// A cache from C: its objects, its constructor's errors, its limit, its statistics.
#include <stdbool.h>
#include <string.h>

#include <larder/larder.h>

#include "check.h"

struct session {
  int id;
  int resets;
  char text[120];
};

// What the hooks saw; their context.
struct census {
  int constructed;
  int destroyed;
  int reset;
  int fail_with;
};

static int construct(void* object, void* context) {
  struct census* census = context;
  if (census->fail_with != 0) return census->fail_with;
  struct session* session = object;
  CHECK(session->id == 0 || getenv("LARDER_DEBUG") != NULL);  // memory comes zeroed
  session->id = ++census->constructed;
  session->resets = 0;
  strcpy(session->text, "built");
  return 0;
}

static void destroy(void* object, void* context) {
  const struct session* session = object;
  CHECK(strcmp(session->text, "built") == 0);
  ++((struct census*)context)->destroyed;
}

static void reset(void* object, void* context) {
  ++((struct session*)object)->resets;
  ++((struct census*)context)->reset;
}

static larder_cache_options options_of(struct census* census) {
  const larder_cache_options options = {.struct_size = sizeof options,
                                        .object_size = sizeof(struct session),
                                        .construct = construct,
                                        .destroy = destroy,
                                        .reset = reset,
                                        .context = census};
  return options;
}

static larder_cache_statistics stats_of(const larder_cache* cache) {
  larder_cache_statistics now = {.struct_size = sizeof now};
  CHECK(larder_cache_stats(cache, &now) == 0);
  CHECK(now.struct_size == sizeof now);
  return now;
}

static void objects_are_built_once_and_stay_built(void) {
  struct census census = {0};
  larder_cache_options options = options_of(&census);
  options.limit = 1;  // so that it comes back though the thread moves to another CPU
  larder_cache* cache = larder_cache_create("sessions", &options);
  CHECK(cache != NULL);
  struct session* first = larder_cache_alloc(cache);
  CHECK(first != NULL && first->id == 1 && strcmp(first->text, "built") == 0);
  for (int i = 1; i <= 1000; ++i) {
    CHECK(larder_cache_free(cache, first) == 0);
    CHECK(larder_cache_try_alloc(cache) == first);
    CHECK(first->resets == i);
  }
  CHECK(census.constructed == 1 && census.reset == 1000);
  const larder_cache_statistics now = stats_of(cache);
  CHECK(now.objects_out == 1 && now.objects_built == 1 && now.constructed == 1 && now.destroyed == 0);
  CHECK(now.allocs == 1001 && now.frees == 1000 && now.slabs == 1 && now.waits == 0 && now.waiting == 0);
  CHECK(now.charged_bytes > now.slab_bytes && now.slab_bytes >= now.objects_per_slab * sizeof(struct session));
  CHECK(larder_cache_free(cache, first) == 0);
  CHECK(larder_cache_audit(cache) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(census.destroyed == 1);
}

static void destroying_with_objects_out_is_refused(void) {
  struct census census = {0};
  const larder_cache_options options = options_of(&census);
  larder_cache* cache = larder_cache_create("busy", &options);
  struct session* object = larder_cache_alloc(cache);
  CHECK(larder_cache_destroy(cache) == EBUSY);
  CHECK(census.destroyed == 0);
  strcpy(object->text, "built");  // it is still there, and so is the cache
  CHECK(larder_cache_free(cache, object) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(census.destroyed == 1);
}

// KF-4
static void what_the_constructor_returns_is_errno(void) {
  struct census census = {0};
  larder_cache_options options = options_of(&census);
  larder_cache* cache = larder_cache_create("failing", &options);
  CHECK(cache != NULL);
  census.fail_with = EPROTO;
  CHECK_FAILS(larder_cache_alloc(cache), EPROTO);
  CHECK_FAILS(larder_cache_alloc_timeout(cache, 1000), EPROTO);
  CHECK_FAILS(larder_cache_try_alloc(cache), EAGAIN);
  CHECK(stats_of(cache).construct_failures == 3);
  census.fail_with = 0;
  void* object = larder_cache_alloc(cache);
  CHECK(object != NULL);
  CHECK(larder_cache_free(cache, object) == 0);
  CHECK(larder_cache_audit(cache) == 0);
  CHECK(larder_cache_destroy(cache) == 0);

  options.reservation = 10;
  census.fail_with = EPROTO;
  CHECK_FAILS(larder_cache_create("failing", &options), EPROTO);
}

static void limit_and_reservation_are_exact(void) {
  struct census census = {0};
  larder_cache_options options = options_of(&census);
  options.reservation = 7;
  options.limit = 9;
  larder_cache* cache = larder_cache_create("limited", &options);
  CHECK(cache != NULL && census.constructed == 7);
  void* objects[9];
  for (int i = 0; i < 9; ++i) CHECK((objects[i] = larder_cache_try_alloc(cache)) != NULL);
  CHECK_FAILS(larder_cache_try_alloc(cache), EAGAIN);
  CHECK_FAILS(larder_cache_alloc_timeout(cache, 0), ETIMEDOUT);
  CHECK_FAILS(larder_cache_alloc_timeout(cache, 2000000), ETIMEDOUT);
  CHECK(stats_of(cache).waits == 2);
  for (int i = 0; i < 9; ++i) CHECK(larder_cache_free(cache, objects[i]) == 0);
  void* object = larder_cache_alloc_timeout(cache, UINT64_MAX);  // for ever, not a moment in the past
  CHECK(object != NULL && stats_of(cache).objects_out == 1);
  CHECK(larder_cache_free(cache, object) == 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(census.constructed == 9 && census.destroyed == 9);
}

static void reaping_gives_back_all_but_the_reservation(void) {
  struct census census = {0};
  larder_cache_options options = options_of(&census);
  options.reservation = 1;
  larder_cache* cache = larder_cache_create("reaped", &options);
  enum { count = 500 };
  void* objects[count];
  for (int i = 0; i < count; ++i) CHECK((objects[i] = larder_cache_alloc(cache)) != NULL);
  for (int i = 0; i < count; ++i) CHECK(larder_cache_free(cache, objects[i]) == 0);
  const larder_cache_statistics before = stats_of(cache);
  const uint64_t released = larder_cache_reap(cache, 1);
  CHECK(released > 0 && released == before.charged_bytes - stats_of(cache).charged_bytes);
  CHECK(stats_of(cache).slabs > before.slabs / 2);  // enough is enough
  CHECK(larder_cache_reap(cache, UINT64_MAX) >= before.slab_bytes * (before.slabs / 2));
  CHECK(larder_cache_reap(cache, UINT64_MAX) == 0);
  CHECK(stats_of(cache).slabs == 1);
  CHECK(census.destroyed > 0);
  CHECK(larder_cache_destroy(cache) == 0);
  CHECK(census.destroyed == census.constructed);
}

static void plain_memory_needs_no_hooks(void) {
  const larder_cache_options options = {.struct_size = sizeof options, .object_size = 100, .alignment = 4096};
  larder_cache* cache = larder_cache_create("plain", &options);
  CHECK(cache != NULL);
  void* object = larder_cache_alloc(cache);
  CHECK(object != NULL && (uintptr_t)object % 4096 == 0);
  memset(object, 1, 100);
  CHECK(larder_cache_free(cache, object) == 0);
  CHECK(strcmp(larder_cache_name(cache), "plain") == 0);
  // KF-19
  const char* mode = larder_cache_active_mode(cache);
  const bool sharded = strcmp(mode, "sharded") == 0;
  CHECK(sharded || strcmp(mode, "rseq-cpu") == 0 || strcmp(mode, "rseq-cid") == 0);
  CHECK(!sharded || strlen(larder_cache_mode_reason(cache)) > 0);
  CHECK(larder_cache_destroy(cache) == 0);
}

int main(void) {
  objects_are_built_once_and_stay_built();
  destroying_with_objects_out_is_refused();
  what_the_constructor_returns_is_errno();
  limit_and_reservation_are_exact();
  reaping_gives_back_all_but_the_reservation();
  plain_memory_needs_no_hooks();
  return 0;
}

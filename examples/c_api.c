// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>

#include <larder/larder.h>

struct connection {
  char peer[64];
  unsigned char buffer[4096];  // expensive to make, so it is made once
};

static int connection_construct(void* object, void* made) {
  memset(object, 0, sizeof(struct connection));
  ++*(int*)made;
  return 0;  // or an errno value
}

int main(void) {
  const larder_budget_options limits = {.struct_size = sizeof limits, .limit_bytes = 1 << 20};
  larder_budget* budget = larder_budget_create("example", &limits);
  if (budget == NULL) return perror("no budget"), 1;

  int made = 0;
  const larder_cache_options options = {.struct_size = sizeof options,
                                        .object_size = sizeof(struct connection),
                                        .reservation = 8,
                                        .limit = 100,
                                        .construct = connection_construct,
                                        .context = &made,
                                        .budget = budget};
  larder_cache* connections = larder_cache_create("connections", &options);
  if (connections == NULL) return perror("no cache"), 1;

  for (int i = 0; i < 100000; ++i) {
    struct connection* mine = larder_cache_alloc(connections);  // built already; would wait at the limit
    if (mine == NULL) return perror("no connection"), 1;
    snprintf(mine->peer, sizeof mine->peer, "peer %d", i);
    larder_cache_free(connections, mine);
  }
  printf("100000 connections, for which %d were built, in %llu KiB (%s)\n", made,
         (unsigned long long)larder_budget_peak(budget) / 1024, larder_cache_active_mode(connections));
  return larder_cache_destroy(connections) != 0 || larder_budget_destroy(budget) != 0;
}

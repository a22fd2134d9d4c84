// SPDX-License-Identifier: Apache-2.0
// A user's program in C: the public header only, built outside the tree against what was installed.
#include <stdio.h>

#include <larder/larder.h>
#include <larder/version.h>

struct request {
  int uses;
};

int main(void) {
  const larder_cache_options options = {
      .struct_size = sizeof options, .object_size = sizeof(struct request), .reservation = 4, .limit = 100};
  larder_cache* requests = larder_cache_create("requests", &options);
  if (requests == NULL) return 1;
  struct request* first = larder_cache_alloc(requests);
  if (first == NULL || larder_cache_destroy(requests) == 0) return 1;
  first->uses = 1;
  if (larder_cache_free(requests, first) != 0) return 1;
  printf("larder %d.%d.%d\n", LARDER_VERSION_MAJOR, LARDER_VERSION_MINOR, LARDER_VERSION_PATCH);
  return larder_cache_destroy(requests);
}

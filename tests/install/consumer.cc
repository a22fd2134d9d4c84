// SPDX-License-Identifier: Apache-2.0
// A user's program: public headers only, built outside the tree against what was installed.
#include <cstdio>

#include <larder/coroutine.h>
#include <larder/object_cache.h>
#include <larder/version.h>

namespace {

struct request {
  int uses = 0;
};

}  // namespace

int main() {
  larder::object_cache<request> requests{"requests", {.reservation = 4, .limit = 100}};
  request* first = requests.get();
  first->uses = 1;
  requests.put(first);
  const auto owned = requests.acquire();
  // What a coroutine inlines into its user must fit the library that was installed.
  larder::coroutine counter{[] {
    for (int count = 1;; ++count) larder::coroutine::yield(&count);
  }};
  counter.resume();
  if (*static_cast<int*>(counter.resume()) != 2) return 1;
  std::printf("larder %d.%d.%d\n", LARDER_VERSION_MAJOR, LARDER_VERSION_MINOR, LARDER_VERSION_PATCH);
  return owned != nullptr && requests.stats().objects_out == 1 ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <list>
#include <map>
#include <memory_resource>
#include <new>
#include <string>

#include <larder/allocator.h>
#include <larder/memory_budget.h>
#include <larder/memory_resource.h>

// A map whose nodes come from the cache of their size, without a virtual call.
using word_counts = std::map<int, int, std::less<>, larder::allocator<std::pair<const int, int>>>;

int main() {
  using namespace larder::literals;
  larder::memory_budget budget{"example", {.limit = 1_MiB}};
  larder::memory_resource memory{"containers", {.budget = &budget}};
  {
    word_counts counts{memory};
    for (int i = 0; i < 100'000; ++i) ++counts[i % 1000];
    std::pmr::list<std::pmr::string> lines{&memory};  // strings too: the list hands its resource down
    try {
      for (;;) lines.emplace_back("a line that is too long to be kept inside the string itself");
    } catch (const std::bad_alloc&) {
      std::printf("%zu counts and %zu lines fit in %llu KiB\n", counts.size(), lines.size(),
                  static_cast<unsigned long long>(budget.used() / 1_KiB));
    }
  }
  memory.trim();  // or leave it to the keeper, or to whoever needs the budget next
  std::printf("%llu KiB are left for what comes next\n",
              static_cast<unsigned long long>((budget.limit() - budget.used()) / 1_KiB));
}

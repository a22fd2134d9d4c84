// SPDX-License-Identifier: Apache-2.0
//
// A cache of the program's own under a limit that changes: a table of rendered glyphs that can be rendered again. It
// grows while there is room, gives back when the page daemon or a lower limit asks, and the program hears of it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include <larder/memory_budget.h>

namespace {

using namespace larder::literals;

constexpr larder::bytes glyph_size = 4_KiB;

class glyph_cache final : private larder::reclaimer {
 public:
  explicit glyph_cache(larder::memory_budget& budget) : budget_(budget) {
    budget_.add_reclaimer(*this, larder::reclaim_stage::user);
  }
  ~glyph_cache() {
    budget_.remove_reclaimer(*this);
    drop(larder::unlimited);
  }
  glyph_cache(const glyph_cache&) = delete;
  glyph_cache& operator=(const glyph_cache&) = delete;

  // The first byte of a glyph; rendered, and kept if there is memory to spare.
  char look_up(unsigned letter) {
    const std::lock_guard locked(guard_);
    if (const auto found = glyphs_.find(letter); found != glyphs_.end()) return found->second[0];
    if (budget_.try_charge_spare(glyph_size)) {
      auto made = std::make_unique<char[]>(glyph_size.count);
      std::fill_n(made.get(), glyph_size.count, static_cast<char>(letter));
      glyphs_[letter] = std::move(made);
    }
    return static_cast<char>(letter);
  }
  std::size_t size() const {
    const std::lock_guard locked(guard_);
    return glyphs_.size();
  }

 private:
  // On the page daemon's thread, or on that of whoever lacks memory: takes our own lock only, waits for no memory.
  larder::bytes reclaim(larder::bytes wanted) override { return drop(wanted); }

  larder::bytes drop(larder::bytes wanted) {
    larder::bytes dropped;
    {
      const std::lock_guard locked(guard_);
      while (dropped < wanted && !glyphs_.empty()) {
        glyphs_.erase(glyphs_.begin());
        dropped += glyph_size;
      }
    }
    if (dropped.count > 0) budget_.release(dropped);  // after it is free
    return dropped;
  }

  larder::memory_budget& budget_;
  mutable std::mutex guard_;
  std::unordered_map<unsigned, std::unique_ptr<char[]>> glyphs_;
};

}  // namespace

int main() {
  larder::memory_budget budget{"glyphs", {.limit = 4_MiB}};
  budget.on_event([](const larder::budget_event& event) {
    using kind = larder::budget_event::kind;
    if (event.what == kind::pressure) std::puts("above the high mark: the page daemon reclaims");
    if (event.what == kind::limit_lowered) {
      std::printf("the limit is %llu KiB now\n", static_cast<unsigned long long>(event.limit / 1_KiB));
    }
    if (event.what == kind::out_of_memory) {
      std::printf("no room for %llu KiB; of what is used, %llu KiB are the program's own\n",
                  static_cast<unsigned long long>(event.wanted / 1_KiB),
                  static_cast<unsigned long long>(event.account->other / 1_KiB));
    }
  });
  glyph_cache glyphs(budget);
  for (unsigned letter = 0; letter < 2000; ++letter) glyphs.look_up(letter);
  std::printf("%zu of 2000 glyphs are kept: up to the high mark\n", glyphs.size());

  // Somebody needs half of the memory, and waits until the glyphs have made room.
  if (!budget.charge(2_MiB)) return EXIT_FAILURE;
  budget.release(2_MiB);

  if (!budget.set_limit(1_MiB)) return EXIT_FAILURE;  // at run time; it holds as soon as what is above it is gone
  while (budget.limit() > 1_MiB) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::printf("%zu glyphs are left\n", glyphs.size());

  if (budget.charge(2_MiB)) return EXIT_FAILURE;  // it can never fit, so it fails at once
  budget.on_event({});
}

// SPDX-License-Identifier: Apache-2.0
//
// Claim (that of the cache of Xen's win-pv XENBUS driver): slabs taken from in the order of their occupancy, the
// fullest first, need fewer slabs and fewer runs of the constructor than slabs in another order (cache/slab_layer.h).
// One recorded trace of lifetimes is played in each: nine objects of ten live shortly, one ten times as long, and the
// load rises to eight times its least and falls back, four times over. After every round a keeper destroys the slabs
// that the round did without. So two things are bought with each other: what an order lets go of sooner must be built
// again at the next rise, and fewer slabs in use may mean more runs of the constructor, not fewer. Both are shown.
//
// The time is that of a get and a put, with the keeper's part.
//
// Slabs alone are driven here, without the CPUs' arrays, which would only blur what the order does.
#include "bench/object_cache/occupancy.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "cache/slab.h"
#include "cache/slab_layer.h"
#include "os/memory.h"

namespace larder::bench {
namespace {

constexpr std::uint32_t steps = 400'000;
constexpr std::uint32_t steps_per_wave = 100'000;
constexpr std::uint32_t steps_per_round = 500;

struct life {
  std::uint32_t dies_at;
  std::uint32_t number;
  bool operator>(const life& other) const { return dies_at > other.dies_at; }
};

// What happens in each step: so many objects are got, numbered on, and these are put.
struct trace {
  struct step {
    std::uint32_t gets = 0;
    std::vector<std::uint32_t> puts;
  };
  std::vector<step> of = std::vector<step>(steps);
  std::uint32_t objects = 0;
};

trace record() {
  trace made;
  std::mt19937 random(1);
  std::exponential_distribution<> short_life(1.0 / 500);
  std::exponential_distribution<> long_life(1.0 / 5'000);
  std::priority_queue<life, std::vector<life>, std::greater<>> alive;
  for (std::uint32_t now = 0; now < steps; ++now) {
    for (; !alive.empty() && alive.top().dies_at <= now; alive.pop()) made.of[now].puts.push_back(alive.top().number);
    const double wave = (1 - std::cos(2 * M_PI * now / steps_per_wave)) / 2;
    std::poisson_distribution<std::uint32_t> arrivals(0.5 + 3.5 * wave);
    made.of[now].gets = arrivals(random);
    for (std::uint32_t i = 0; i < made.of[now].gets; ++i) {
      const double lives = random() % 10 == 0 ? long_life(random) : short_life(random);
      alive.push({now + 1 + static_cast<std::uint32_t>(lives), made.objects++});
    }
  }
  return made;
}

// A layer of slabs with what a cache has around it.
class slabs {
 public:
  slabs(std::size_t object_size, cache::slab_order order)
      : layout_(*cache::slab_geometry::choose(object_size, 16, {})), layer_(layout_, name_, SIZE_MAX, 0, order) {}
  ~slabs() {
    while (cache::slab* last = layer_.remove_any()) os::unmap(last, layout_.shape.length);
  }

  void* get() {
    cache::slab_layer::taken taken = layer_.take();
    if (taken.object == nullptr) {
      const auto mapped = os::map(layout_.shape.length, layout_.shape.alignment);
      LARDER_CHECK(mapped, "no memory for a slab");
      layer_.insert(*cache::slab::make(*mapped, layout_));
      taken = layer_.take();
    }
    if (!taken.built) ++constructed_;
    return taken.object;
  }
  void put(void* object) { layer_.put(object); }

  // The least that was empty in the round that ends here was not needed.
  void look() { empty_min_ = std::min(empty_min_, layer_.empty_slabs()); }
  void end_round() {
    for (; empty_min_ > 0; --empty_min_) {
      if (cache::slab* surplus = layer_.remove_surplus()) os::unmap(surplus, layout_.shape.length);
    }
    empty_min_ = layer_.empty_slabs();
  }

  const cache::slab_layer& layer() const { return layer_; }
  std::size_t capacity() const { return layout_.capacity; }
  std::uint64_t constructed() const { return constructed_; }

 private:
  const std::string name_ = "bench";
  const cache::slab_geometry layout_;
  cache::slab_layer layer_;
  std::size_t empty_min_ = 0;
  std::uint64_t constructed_ = 0;
};

struct findings {
  double slabs_sum = 0;
  double needed_sum = 0;  // were all objects that are out in full slabs
  std::size_t objects_per_slab = 0;
  std::size_t slabs_peak = 0;
  std::size_t slabs_after_fall = 0;
  std::size_t needed_after_fall = 0;
  std::uint64_t constructed = 0;
};

findings play(const trace& lifetimes, std::size_t object_size, cache::slab_order order) {
  findings found;
  slabs played(object_size, order);
  std::vector<void*> objects(lifetimes.objects);
  std::uint32_t next = 0;
  for (std::uint32_t now = 0; now < steps; ++now) {
    for (const std::uint32_t number : lifetimes.of[now].puts) {
      played.put(objects[number]);
      objects[number] = nullptr;
    }
    for (std::uint32_t i = 0; i < lifetimes.of[now].gets; ++i) objects[next++] = played.get();
    played.look();
    const std::size_t needed = (played.layer().handed_out() + played.capacity() - 1) / played.capacity();
    found.slabs_sum += static_cast<double>(played.layer().slabs());
    found.needed_sum += static_cast<double>(needed);
    found.slabs_peak = std::max(found.slabs_peak, played.layer().slabs());
    if ((now + 1) % steps_per_round == 0) played.end_round();
    found.slabs_after_fall = played.layer().slabs();  // the trace ends at the foot of a wave
    found.needed_after_fall = needed;
  }
  found.objects_per_slab = played.capacity();
  found.constructed = played.constructed();
  for (void* left : objects) {
    if (left != nullptr) played.put(left);
  }
  return found;
}

void random_lifetimes(benchmark::State& state, cache::slab_order order) {
  static const trace lifetimes = record();
  findings found;
  std::int64_t operations = 0;
  while (state.KeepRunningBatch(lifetimes.objects)) {
    found = play(lifetimes, static_cast<std::size_t>(state.range(0)), order);
    operations += lifetimes.objects;
  }
  state.SetItemsProcessed(operations);
  state.counters["objects_per_slab"] = static_cast<double>(found.objects_per_slab);
  state.counters["result_slabs_mean"] = found.slabs_sum / steps;
  state.counters["slabs_needed_mean"] = found.needed_sum / steps;
  state.counters["slabs_peak"] = static_cast<double>(found.slabs_peak);
  state.counters["slabs_after_fall"] = static_cast<double>(found.slabs_after_fall);
  state.counters["slabs_needed_after_fall"] = static_cast<double>(found.needed_after_fall);
  state.counters["constructed"] = static_cast<double>(found.constructed);
}

}  // namespace

void register_occupancy() {
  using cache::slab_order;
  for (const auto& [name, order] : {std::pair{"fullest_first", slab_order::fullest_first},
                                    {"last_full_first", slab_order::last_full_first},
                                    {"latest_first", slab_order::latest_first}}) {
    const auto run = [played = order](benchmark::State& state) { random_lifetimes(state, played); };
    const std::string title = std::string("random_lifetimes<") + name + '>';
    benchmark::RegisterBenchmark(title.c_str(), run)->Arg(64)->Arg(512)->Arg(4096);
  }
}

}  // namespace larder::bench

// SPDX-License-Identifier: Apache-2.0
//
// Guest cores of a virtual machine, each with a timer that starts a task per tick: what the Akaros VMM kept its task
// threads in a cache for. Once warm, a storm makes no mapping and builds no stack; tests/tick_storm/run has the system
// calls counted.
// usage: tick_storm [--cores N] [--rate HZ] [--seconds S] [--workers N]
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <larder/keeper.h>
#include <larder/runtime.h>
#include <larder/stats.h>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using count = unsigned long long;

struct setting {
  const char* option;
  const char* meaning;
  count value;
  count least;
  count most;
};

setting cores{"--cores", "guest cores", 8, 1, 256};
setting rate{"--rate", "ticks of each core in a second", 10'000, 1'000, 100'000};
setting seconds{"--seconds", "how long the storm lasts once it is warm", 3, 1, 3600};
setting workers{"--workers", "threads that run the tasks, 0 for one a CPU", 0, 0, 64};
setting* const settings[] = {&cores, &rate, &seconds, &workers};

void print_usage(std::FILE* to) {
  std::fprintf(to, "usage: tick_storm [option value]...\n");
  for (const setting* each : settings) {
    std::fprintf(to, "  %-9s  %s: %llu to %llu, %llu unless given\n", each->option, each->meaning, each->least,
                 each->most, each->value);
  }
}

bool read_setting(std::string_view option, const char* value) {
  for (setting* each : settings) {
    if (option != each->option) continue;
    const std::string_view text = value == nullptr ? "" : value;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), each->value);
    if (error == std::errc() && end == text.data() + text.size() && each->value >= each->least &&
        each->value <= each->most) {
      return true;
    }
    std::fprintf(stderr, "tick_storm: %s takes a number from %llu to %llu, not \"%s\"\n", each->option, each->least,
                 each->most, value == nullptr ? "" : value);
    return false;
  }
  std::fprintf(stderr, "tick_storm: no such option: %.*s\n", static_cast<int>(option.size()), option.data());
  print_usage(stderr);
  return false;
}

constexpr count stacks_for_each_core = 8;

struct totals {
  count ticks = 0;
  count late = 0;  // by more than a tick
  count ran = 0;
};

class storm {
 public:
  explicit storm(larder::runtime& where) : runtime_(where), guests_(cores.value) {
    const auto begins = clock_type::now();  // all tick at the same time
    for (unsigned number = 0; number < cores.value; ++number) {
      runtime_.spawn_detached_on(number % runtime_.workers(),
                                 [this, number, begins] { tick(guests_[number], begins); });
    }
  }
  void stop() { stopping_ = true; }

  totals so_far() const {
    totals sum;
    for (const guest& each : guests_) {
      sum.ticks += each.ticks;
      sum.late += each.late;
      sum.ran += each.ran;
    }
    return sum;
  }
  // Beside the tasks that tick.
  std::size_t alive() const { return runtime_.tasks() - guests_.size(); }

 private:
  // Written by one worker, read by anyone.
  struct alignas(64) guest {
    std::atomic<count> ticks{0};
    std::atomic<count> late{0};
    std::atomic<count> ran{0};
  };

  // No tick is left out: one that is behind is made up for as soon as the others on this worker had their turn.
  void tick(guest& core, clock_type::time_point due) {
    while (!stopping_) {
      due += period_;
      if (clock_type::now() < due) {
        larder::this_task::sleep_until(due);
      } else {
        larder::this_task::yield();
      }
      if (clock_type::now() > due + period_) ++core.late;
      ++core.ticks;
      runtime_.spawn_detached([&core] {
        larder::this_task::yield();  // as if to wait for the core to take the interrupt
        ++core.ran;
      });
    }
  }

  larder::runtime& runtime_;
  const std::chrono::nanoseconds period_{1'000'000'000 / rate.value};
  std::atomic<bool> stopping_{false};
  std::vector<guest> guests_;
};

// Half of the stacks at once, more than the storm will have, so that whatever their cache needs for that is there. A
// thread of the library's would give it back a second later if it were not told to wait.
void warm_up(larder::runtime& where) {
  (void)larder::configure_keeper({.period = 1h});
  const auto end = clock_type::now() + 500ms;
  const count burst = stacks_for_each_core / 2 * cores.value / where.workers();
  for (unsigned worker = 0; worker < where.workers(); ++worker) {
    where.spawn_detached_on(worker, [&where, end, burst] {
      while (clock_type::now() < end) {
        for (count task = 0; task < burst; ++task) where.spawn_detached([] { larder::this_task::yield(); });
        larder::this_task::sleep_for(1ms);
      }
    });
  }
  while (where.tasks() != 0) std::this_thread::sleep_for(1ms);
}

struct footprint {
  count mappings = 0;
  count page_tables_kib = 0;
  count stacks_built = 0;
  count stacks_destroyed = 0;
};

footprint measure() {
  footprint taken;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) ++taken.mappings;
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmPTE:") status >> taken.page_tables_kib;
  }
  larder::for_each_stat([&taken](const larder::stat& each) {
    if (each.component != "object_cache/tick_storm/stacks") return;
    if (each.name == "constructed") taken.stacks_built = each.value;
    if (each.name == "destroyed") taken.stacks_destroyed = each.value;
  });
  return taken;
}

bool run(larder::runtime& where) {
  warm_up(where);
  storm raging(where);
  std::this_thread::sleep_for(500ms);
  const footprint warm = measure();
  std::printf("warm-up is over\n");

  totals last = raging.so_far();
  auto next = clock_type::now();
  for (count second = 1; second <= seconds.value; ++second) {
    std::this_thread::sleep_until(next += 1s);
    const totals now = raging.so_far();
    std::printf("second %llu: %llu ticks, %llu of them late, %llu tasks ran, %zu are alive\n", second,
                now.ticks - last.ticks, now.late - last.late, now.ran - last.ran, raging.alive());
    last = now;
  }
  std::printf("the storm is over\n");

  const footprint end = measure();
  raging.stop();
  while (where.tasks() != 0) std::this_thread::sleep_for(1ms);
  const totals all = raging.so_far();
  std::printf("%llu tasks ran on %llu stacks, which are kept; since warm-up %llu were built and %llu destroyed\n",
              all.ran, end.stacks_built - end.stacks_destroyed, end.stacks_built - warm.stacks_built,
              end.stacks_destroyed - warm.stacks_destroyed);
  std::printf("page tables: %llu KiB, were %llu; mappings: %llu, were %llu: ", end.page_tables_kib,
              warm.page_tables_kib, end.mappings, warm.mappings);
  std::printf(end.mappings > warm.mappings ? "some were made\n" : "none was made\n");
  if (all.ran != all.ticks) std::printf("failed: there were %llu ticks\n", all.ticks);
  return all.ran == all.ticks;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // progress is seen through a pipe too
  for (int i = 1; i < argc; i += 2) {
    if (std::string_view(argv[i]) == "--help") {
      print_usage(stdout);
      return 0;
    }
    if (!read_setting(argv[i], argv[i + 1])) return 2;
  }
  auto runtime = larder::runtime::create("tick_storm", {.workers = static_cast<unsigned>(workers.value),
                                                        .stack_size = larder::bytes{16U << 10},
                                                        .stacks_reserved = stacks_for_each_core * cores.value});
  if (!runtime) {
    std::fprintf(stderr, "tick_storm: no runtime: %s\n", runtime.error().message().c_str());
    return 1;
  }
  std::printf("%llu guest cores, %llu ticks a second each, on %u workers\n", cores.value, rate.value,
              (*runtime)->workers());
  return run(**runtime) ? 0 : 1;
}

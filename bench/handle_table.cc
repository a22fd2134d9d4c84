// SPDX-License-Identifier: Apache-2.0
//
// What naming an object by a handle and finding it again costs, beside the usual choice: a vector of pointers with a
// list of free slots, under a mutex, which knows no stale handle.
#include <mutex>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/handle_table.h>

namespace {

class locked_vector {
 public:
  std::size_t insert(int* object) {
    const std::lock_guard<std::mutex> locked(guard_);
    if (free_.empty()) {
      objects_.push_back(object);
      return objects_.size() - 1;
    }
    const std::size_t slot = free_.back();
    free_.pop_back();
    objects_[slot] = object;
    return slot;
  }
  int* find(std::size_t slot) const {
    const std::lock_guard<std::mutex> locked(guard_);
    return slot < objects_.size() ? objects_[slot] : nullptr;
  }
  void erase(std::size_t slot) {
    const std::lock_guard<std::mutex> locked(guard_);
    objects_[slot] = nullptr;
    free_.push_back(slot);
  }

 private:
  mutable std::mutex guard_;
  std::vector<int*> objects_;
  std::vector<std::size_t> free_;
};

struct handles {
  handles() : table("bench", {.limit = 1 << 16}) {}
  using name = larder::handle;
  name insert(int* object) { return table.insert(object); }
  int* find(name which) const { return table.find(which); }
  void erase(name which) { table.erase(which); }
  larder::handle_table<int> table;
};

struct slots : locked_vector {
  using name = std::size_t;
};

int target = 0;

template <typename Table>
void insert_and_erase(benchmark::State& state) {
  Table table;
  for (auto _ : state) {
    const auto made = table.insert(&target);
    benchmark::DoNotOptimize(made);
    table.erase(made);
  }
}

template <typename Table>
void find_among(benchmark::State& state) {
  Table table;
  std::vector<typename Table::name> names;
  for (std::int64_t i = 0; i < state.range(0); ++i) names.push_back(table.insert(&target));
  std::mt19937 random(1);
  std::vector<typename Table::name> order;
  for (int i = 0; i < 4096; ++i) order.push_back(names[random() % names.size()]);
  std::size_t next = 0;
  for (auto _ : state) benchmark::DoNotOptimize(table.find(order[next++ % 4096]));
}

BENCHMARK(insert_and_erase<slots>);
BENCHMARK(insert_and_erase<handles>);
BENCHMARK(find_among<slots>)->Arg(100)->Arg(60'000);
BENCHMARK(find_among<handles>)->Arg(100)->Arg(60'000);

}  // namespace

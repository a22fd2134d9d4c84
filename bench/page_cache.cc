// SPDX-License-Identifier: Apache-2.0
//
// A page in memory, at random: pin it, read 64 bytes, unpin it; beside pread of the same 64 bytes of the same file,
// which the kernel has in memory too. The claim is ns for one of each.
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include <larder/page_cache.h>

namespace {

constexpr std::uint64_t pages = 16'384;  // 64 MiB: more than the processor's caches hold

// A file full of bytes, open in the kernel and in a cache that holds all of it.
struct warm_file {
  warm_file() {
    std::array<char, 32> path{};
    std::strcpy(path.data(), "/tmp/larder-bench-XXXXXX");
    descriptor = ::mkstemp(path.data());
    ::unlink(path.data());
    const std::vector<char> page(larder::page_size, 'x');
    for (std::uint64_t i = 0; i < pages; ++i) {
      if (::write(descriptor, page.data(), page.size()) != static_cast<ssize_t>(page.size())) std::abort();
    }
    disk = *larder::file_backing::adopt(::dup(descriptor), true);
    cache = *larder::page_cache::create("bench", {.budget = &budget});
    file = *cache->open(*disk);
    if (!file->read_ahead(0, disk->size())) std::abort();
  }
  ~warm_file() { ::close(descriptor); }

  int descriptor = -1;
  larder::memory_budget budget{"bench"};
  std::unique_ptr<larder::file_backing> disk;
  std::unique_ptr<larder::page_cache> cache;
  std::unique_ptr<larder::cached_file> file;
};

warm_file& the_file() {
  static warm_file instance;
  return instance;
}

std::uint64_t next_page(std::uint64_t& state) {
  state = state * 6364136223846793005U + 1442695040888963407U;
  return (state >> 33) % pages;
}

void pin_read_64_unpin(benchmark::State& state) {
  warm_file& warm = the_file();
  auto admission = warm.cache->admit(1, 1);
  std::uint64_t random = static_cast<std::uint64_t>(state.thread_index()) + 1;
  std::array<std::byte, 64> into{};
  for (auto _ : state) {
    auto page = warm.file->pin(next_page(random), larder::access::read, *admission);
    std::memcpy(into.data(), page->data().data() + 1024, into.size());
    benchmark::DoNotOptimize(into);
  }
}
BENCHMARK(pin_read_64_unpin)->ThreadRange(1, 2)->UseRealTime();

void try_pin_read_64_unpin(benchmark::State& state) {
  warm_file& warm = the_file();
  auto admission = warm.cache->admit(1, 1);
  std::uint64_t random = static_cast<std::uint64_t>(state.thread_index()) + 1;
  std::array<std::byte, 64> into{};
  for (auto _ : state) {
    const larder::page_ref page = warm.file->try_pin(next_page(random), *admission);
    std::memcpy(into.data(), page.data().data() + 1024, into.size());
    benchmark::DoNotOptimize(into);
  }
}
BENCHMARK(try_pin_read_64_unpin)->ThreadRange(1, 2)->UseRealTime();

// The same for a few pages, which the processor has in its caches: the instructions alone.
void try_pin_of_few_pages(benchmark::State& state) {
  warm_file& warm = the_file();
  auto admission = warm.cache->admit(1, 1);
  std::uint64_t number = 0;
  for (auto _ : state) {
    const larder::page_ref page = warm.file->try_pin(++number % 64, *admission);
    benchmark::DoNotOptimize(page.data().data());
  }
}
BENCHMARK(try_pin_of_few_pages);

void pread_64(benchmark::State& state) {
  warm_file& warm = the_file();
  std::uint64_t random = static_cast<std::uint64_t>(state.thread_index()) + 1;
  std::array<std::byte, 64> into{};
  for (auto _ : state) {
    const auto offset = static_cast<off_t>(next_page(random) * larder::page_size + 1024);
    if (::pread(warm.descriptor, into.data(), into.size(), offset) != 64) std::abort();
    benchmark::DoNotOptimize(into);
  }
}
BENCHMARK(pread_64)->ThreadRange(1, 2)->UseRealTime();

}  // namespace

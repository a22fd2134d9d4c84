// SPDX-License-Identifier: Apache-2.0
//
// Keeps many coroutines alive at once, each on a guarded stack of its own, and says what that costs.
// usage: million_coroutines [count]
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <larder/coroutine.h>

namespace {

std::size_t mappings() {
  std::ifstream file("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  return lines;
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t pages = 0;
  file >> size >> pages;
  return static_cast<double>(pages) * 4096 / 1048576;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
  std::vector<larder::coroutine> live;
  live.reserve(count);
  const std::size_t mappings_before = mappings();
  const double resident_before = resident_mib();
  const auto began = std::chrono::steady_clock::now();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    live.emplace_back(
        [i, &sum] {
          larder::coroutine::yield();
          sum += i;
        },
        larder::coroutine::options{.stack_size = larder::bytes{16U << 10}});
    live.back().resume();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const double resident = resident_mib() - resident_before;
  std::printf("%zu coroutines with guarded stacks of 16 KiB are alive\n", live.size());
  std::printf("  mappings more than before: %zu\n", mappings() - mappings_before);
  std::printf("  resident:                  %.0f MiB, %.2f KiB each\n", resident,
              resident * 1024 / static_cast<double>(count));
  std::printf("  made and begun in:         %.2f s, %.0f ns each\n", took.count(),
              took.count() * 1e9 / static_cast<double>(count));
  for (larder::coroutine& each : live) each.resume();
  if (sum != static_cast<std::uint64_t>(count) * (count - 1) / 2) {
    std::printf("the sum is %llu, which is wrong\n", static_cast<unsigned long long>(sum));
    return 1;
  }
  return 0;
}
